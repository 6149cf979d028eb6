# SPDX-License-Identifier: Apache-2.0
"""One patch over the whole canvas must do what the pipeline of diffusers itself does."""

from functools import cache

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import SD3IPAdapterJointAttnProcessor2_0
from diffusers.models.embeddings import IPAdapterTimeImageProjection
from PIL import Image
from pixelsmith import Canvas, JobConfig
from pixelsmith.adapters import Condition, Control, from_pipeline
from pixelsmith.adapters.flux import pack, unpack
from pixelsmith.core.engine import run_stage
from pixelsmith.core.noise import CellNoise
from tiny_models import tiny_pipeline

SIDE, STEPS, SEED = 16, 4, 5
PROMPT, NEGATIVE = "a red ball", "blue"
FAMILIES = ("sd", "sdxl", "sd3", "flux")


@cache
def shared(family):
    """A pipeline that no test changes."""
    return tiny_pipeline(family)


def settings_of(family):
    if family == "flux":
        return {"negative_prompt": NEGATIVE, "true_cfg_scale": 2.5, "guidance_scale": 3.0}
    return {"negative_prompt": NEGATIVE, "guidance_scale": 4.0}


def noise_of(channels):
    return CellNoise(SEED, channels, SIDE, SIDE).read(0, 0, SIDE, SIDE)


def host_latents(pipe, family, start, **settings):
    """Return the host's output for these latents, ``(C, h, w)``."""
    packed = pack(start[None]) if family == "flux" else start[None]
    found = pipe(
        PROMPT, latents=packed.clone(), num_inference_steps=STEPS, output_type="latent",
        height=SIDE * 4, width=SIDE * 4, **settings,
    ).images  # fmt: skip
    return (unpack(found, SIDE, SIDE) if family == "flux" else found)[0]


def our_latents(model, clean=None, **job):
    """Return the result of one patch from the noise, or from the noised image."""
    job = {"slider": 0, "start": "noise", **job}
    config = JobConfig(patch=SIDE, patch_multiple=2, seed=SEED, **job)
    clean = torch.zeros(model.channels, SIDE, SIDE) if clean is None else clean
    denoiser = model.denoiser((SIDE * 4, SIDE * 4), (SIDE, SIDE))
    return run_stage(denoiser, Canvas(clean), config).data


def assert_same(ours, host, tolerance=1e-5):
    assert ours.shape == host.shape
    assert host.std() > 0.05  # something was computed
    error = (ours - host).abs().max() / host.abs().max()
    assert error <= tolerance, f"relative error {error:.2e}"


@pytest.mark.parametrize("family", FAMILIES)
def test_pure_generation_is_the_text_to_image_of_the_host(family):
    pipe = shared(family)
    model = from_pipeline(pipe, PROMPT, num_inference_steps=STEPS, **settings_of(family))
    host = host_latents(pipe, family, noise_of(model.channels), **settings_of(family))
    assert_same(our_latents(model), host)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_guidance(family):
    pipe = shared(family)
    settings = {"guidance_scale": 1.0}
    model = from_pipeline(pipe, PROMPT, num_inference_steps=STEPS, **settings)
    assert_same(our_latents(model), host_latents(pipe, family, noise_of(model.channels), **settings))


@pytest.mark.parametrize("family", FAMILIES)
def test_one_guided_step_is_image_to_image_from_the_first_level(family):
    pipe = shared(family)
    model = from_pipeline(pipe, PROMPT, num_inference_steps=STEPS, **settings_of(family))
    generator = torch.Generator().manual_seed(1)
    clean = 0.8 * torch.randn(model.channels, SIDE, SIDE, generator=generator)
    noise = noise_of(model.channels)
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    if hasattr(scheduler, "add_noise"):
        scheduler.set_timesteps(STEPS)
        start = scheduler.add_noise(clean, noise, scheduler.timesteps[:1])
    else:  # the first level of a flow is all noise
        start = noise
    host = host_latents(pipe, family, start, **settings_of(family))
    assert_same(our_latents(model, clean, slider=1, start="guidance"), host, 2e-5)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("EulerDiscreteScheduler", {"timestep_spacing": "leading"}),
        ("EulerDiscreteScheduler", {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    ],
    ids=["euler", "euler-v", "2m"],
)
def test_other_schedulers(name, changes):
    pipe = tiny_pipeline("sdxl")
    pipe.scheduler = getattr(diffusers, name).from_config({**pipe.scheduler.config, **changes})
    model = from_pipeline(pipe, PROMPT, num_inference_steps=STEPS, **settings_of("sdxl"))
    host = host_latents(pipe, "sdxl", noise_of(4), **settings_of("sdxl"))
    assert_same(our_latents(model), host, 2e-5)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_rescaled_guidance(family):
    pipe = shared(family)
    settings = {**settings_of(family), "guidance_rescale": 0.7}
    model = from_pipeline(pipe, PROMPT, num_inference_steps=STEPS, **settings)
    host = host_latents(pipe, family, noise_of(4), **settings)
    assert_same(our_latents(model), host)
    plain = from_pipeline(pipe, PROMPT, num_inference_steps=STEPS, **settings_of(family))
    assert (our_latents(plain) - host).abs().max() > 1e-3


def test_schedules_of_ones_own():
    pipe = shared("flux")
    sigmas = [1.0, 0.8, 0.5, 0.2]
    model = from_pipeline(pipe, PROMPT, sigmas=sigmas)
    assert_same(our_latents(model), host_latents(pipe, "flux", noise_of(16), sigmas=sigmas))
    with pytest.raises(ValueError, match="DDIMScheduler does not take custom timesteps"):
        from_pipeline(shared("sdxl"), PROMPT, timesteps=[901, 601, 301, 1])


def test_a_model_told_its_guidance():
    pipe = tiny_pipeline("sd")
    config = {**pipe.unet.config, "time_cond_proj_dim": 9}
    torch.manual_seed(0)
    pipe.unet = diffusers.UNet2DConditionModel.from_config(config).eval()
    model = from_pipeline(pipe, PROMPT, num_inference_steps=STEPS, guidance_scale=6.0)
    assert_same(our_latents(model), host_latents(pipe, "sd", noise_of(4), guidance_scale=6.0))


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_controlnets_see_what_the_host_shows_them(family):
    pipe = tiny_pipeline(family)
    nets = [controlnet_of(pipe, seed) for seed in (1, 2)]
    image = make_image(SIDE * 4, SIDE * 4)
    kind = "StableDiffusionXLControlNetPipeline" if family == "sdxl" else "StableDiffusionControlNetPipeline"
    parts = {**pipe.components, "controlnet": nets}
    if family == "sd":
        parts["requires_safety_checker"] = False
    host = getattr(diffusers, kind)(**parts)
    host.set_progress_bar_config(disable=True)
    found = host_latents(
        host, family, noise_of(4), image=[image, image], controlnet_conditioning_scale=[0.9, 0.4],
        control_guidance_start=[0.0, 0.5], control_guidance_end=[0.75, 1.0], **settings_of(family),
    )  # fmt: skip
    controls = [
        Control(model=nets[0], image=image, scale=0.9, end=0.75),
        Control(model=nets[1], image=image, scale=0.4, start=0.5),
    ]
    model = from_pipeline(pipe, PROMPT, num_inference_steps=STEPS, controls=controls, **settings_of(family))
    assert_same(our_latents(model), found)
    free = from_pipeline(pipe, PROMPT, num_inference_steps=STEPS, **settings_of(family))
    assert (our_latents(free) - found).abs().max() > 1e-3
    # a pipeline that has ControlNets serves as the plain one of its family
    plain = from_pipeline(host, PROMPT, num_inference_steps=STEPS, **settings_of(family))
    assert np.array_equal(plain.base_image((64, 64), 1), free.base_image((64, 64), 1))
    assert not np.array_equal(model.base_image((64, 64), 1), free.base_image((64, 64), 1))


def controlnet_of(pipe, seed):
    torch.manual_seed(seed)
    net = diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 8, 8)).eval()
    for parameter in net.parameters():
        if not parameter.any():  # convolutions that begin at zero
            torch.nn.init.normal_(parameter, std=0.2)
    return net


def make_image(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_ip_adapters(family):
    pipe = tiny_pipeline(family)
    pipe.load_ip_adapter(ip_adapter_of(pipe.unet), subfolder="", weight_name="", image_encoder_folder=None)
    embeds = [torch.randn(2, 1, 12, generator=torch.Generator().manual_seed(3))]
    settings = {**settings_of(family), "ip_adapter_image_embeds": embeds}
    check_ip_adapter(pipe, family, settings, [embeds[0].flip(0)], settings)


def ip_adapter_of(unet):
    """Random weights in the form of the published files: one image of 12 numbers becomes four tokens."""
    generator = torch.Generator().manual_seed(7)

    def weights(*shape):
        return 0.5 * torch.randn(*shape, generator=generator)

    width = unet.config.cross_attention_dim
    layers = {}
    for number, name in enumerate(name for name in unet.attn_processors if "attn2" in name):
        inner = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for part in ("k", "v"):
            layers[f"{2 * number + 1}.to_{part}_ip.weight"] = weights(inner, width)
    projection = {
        "proj.weight": weights(4 * width, 12),
        "proj.bias": weights(4 * width),
        "norm.weight": weights(width),
        "norm.bias": weights(width),
    }
    return {"image_proj": projection, "ip_adapter": layers}


def test_ip_adapters_of_sd3():
    pipe = tiny_pipeline("sd3")
    torch.manual_seed(7)
    shape = {"hidden_size": 32, "ip_hidden_states_dim": 32, "head_dim": 8, "timesteps_emb_dim": 1280}
    names = pipe.transformer.attn_processors
    pipe.transformer.set_attn_processor({name: SD3IPAdapterJointAttnProcessor2_0(**shape) for name in names})
    pipe.transformer.image_proj = IPAdapterTimeImageProjection(
        embed_dim=12, output_dim=32, hidden_dim=1280, depth=1, dim_head=8, heads=4, num_queries=4
    )
    embeds = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(3))
    settings = {**settings_of("sd3"), "ip_adapter_image_embeds": embeds}
    check_ip_adapter(pipe, "sd3", settings, embeds.flip(0), settings)


def test_ip_adapters_of_flux():
    pipe = tiny_pipeline("flux")
    generator = torch.Generator().manual_seed(7)
    shapes = {"proj.weight": (64, 12), "proj.bias": (64,), "norm.weight": (16,), "norm.bias": (16,)}
    layers = {f"0.to_{part}_ip.weight": (32, 16) for part in "kv"}
    layers |= {f"0.to_{part}_ip.bias": (32,) for part in "kv"}
    state = [
        {name: 0.5 * torch.randn(*shape, generator=generator) for name, shape in part.items()}
        for part in (shapes, layers)
    ]
    weights = dict(zip(("image_proj", "ip_adapter"), state, strict=True))
    pipe.transformer._load_ip_adapter_weights([weights])
    embeds = [torch.randn(1, 1, 12, generator=generator)]
    settings = {"guidance_scale": 3.0, "ip_adapter_image_embeds": embeds}
    # the host wants a negative side even where it does not use one
    check_ip_adapter(
        pipe, "flux", settings, [-embeds[0]], {**settings, "negative_ip_adapter_image_embeds": embeds}
    )


def check_ip_adapter(pipe, family, settings, other, of_host):
    model = from_pipeline(pipe, PROMPT, num_inference_steps=STEPS, **settings)
    host = host_latents(pipe, family, noise_of(model.channels), **of_host)
    assert_same(our_latents(model), host)
    changed = from_pipeline(
        pipe, PROMPT, num_inference_steps=STEPS, **{**settings, "ip_adapter_image_embeds": other}
    )
    assert (our_latents(changed) - host).abs().max() > 1e-3
    assert changed.describe() != model.describe()


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_scale(family):
    peft = pytest.importorskip("peft")
    pipe = tiny_pipeline(family)
    torch.manual_seed(3)
    network = pipe.transformer if family in ("sd3", "flux") else pipe.unet
    network.add_adapter(
        peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False), "style"
    )
    kwargs = "joint_attention_kwargs" if family in ("sd3", "flux") else "cross_attention_kwargs"
    results = []
    for scale in (0.3, 1.0):
        host = host_latents(
            pipe, family, noise_of(16 if family in ("sd3", "flux") else 4), guidance_scale=1.0,
            **{kwargs: {"scale": scale}},
        )  # fmt: skip
        model = from_pipeline(
            pipe, PROMPT, num_inference_steps=STEPS, guidance_scale=1.0, attention_kwargs={"scale": scale}
        )
        results.append(our_latents(model))
        assert_same(results[-1], host)
        assert model.describe()["attention_kwargs"] == {"scale": scale}
    assert (results[0] - results[1]).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_instead_of_text(family):
    pipe = shared(family)
    settings = settings_of(family)
    by_text = from_pipeline(pipe, PROMPT, num_inference_steps=STEPS, **settings)
    condition = by_text.condition()
    given = Condition(embeds=condition.embeds, pooled=condition.pooled)
    by_embeddings = from_pipeline(pipe, given, num_inference_steps=STEPS, **settings)
    assert torch.equal(our_latents(by_embeddings), our_latents(by_text))
    assert np.array_equal(by_embeddings.base_image((64, 64), 1), by_text.base_image((64, 64), 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_base_images_are_those_of_the_host(family):
    pipe = shared(family)
    model = from_pipeline(pipe, PROMPT, num_inference_steps=STEPS, **settings_of(family))
    found = model.base_image((48, 64), 11)
    host = pipe(
        PROMPT, height=48, width=64, num_inference_steps=STEPS,
        generator=torch.Generator().manual_seed(11), **settings_of(family),
    ).images[0]  # fmt: skip
    assert found.shape == (48, 64, 3)
    assert np.array_equal(found, np.asarray(host))
