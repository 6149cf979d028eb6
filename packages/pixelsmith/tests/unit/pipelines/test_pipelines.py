# SPDX-License-Identifier: Apache-2.0
from functools import cache

import accelerate
import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from pixelsmith import JobConfig
from pixelsmith.adapters import CallableModel, from_pipeline
from pixelsmith.config import SizeConfig
from pixelsmith.io.vae import Tiling
from pixelsmith.job import FolderStore, Hooks, Job, JobSpec, MemoryStore, plan_job
from pixelsmith.job import spec as specs
from pixelsmith.job.base import generate_seamless
from pixelsmith.pipelines import (
    PixelsmithFluxPipeline,
    PixelsmithSD3Pipeline,
    PixelsmithSDPipeline,
    PixelsmithXLPipeline,
    pipeline_for,
)
from tiny_models import tiny_pipeline, tiny_vae

CLASSES = {
    "sd": PixelsmithSDPipeline,
    "sdxl": PixelsmithXLPipeline,
    "sd3": PixelsmithSD3Pipeline,
    "flux": PixelsmithFluxPipeline,
}
FAMILIES = tuple(CLASSES)
QUICK = {"num_inference_steps": 2, "guidance_scale": 1.0, "seed": 1, "band": 2}


def made(family):
    host = tiny_pipeline(family)
    pipe = CLASSES[family].from_pipe(host)
    if family == "flux":  # the class assumes 128 latents
        pipe.default_sample_size = host.default_sample_size
    pipe.set_progress_bar_config(disable=True)
    return pipe


@cache
def shared(family):
    """A pipeline that no test changes."""
    return made(family)


def photo(height, width, seed=0):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def pixels_of(output):
    return np.asarray(output.images[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_generate(family):
    output = shared(family)("a red ball", height=72, width=136, **QUICK)
    assert type(output).__name__ == CLASSES[family].output.__name__
    assert output.images[0].size == (136, 72)
    again = shared(family)("a red ball", height=72, width=136, **QUICK)
    other = shared(family)("a red ball", height=72, width=136, **{**QUICK, "seed": 2})
    assert np.array_equal(pixels_of(again), pixels_of(output))
    assert not np.array_equal(pixels_of(other), pixels_of(output))


@pytest.mark.parametrize("family", FAMILIES)
def test_enlarge_a_photo_of_odd_size(family):
    output = shared(family)("a red ball", photo(37, 51), scale=2.0, slider=1.0, **QUICK)
    assert output.images[0].size == (104, 76)  # whole latents of 4 pixels


def test_a_small_result_is_the_base_image():
    output = shared("sdxl")("a red ball", height=64, width=64, **QUICK)
    host = diffusers.StableDiffusionXLPipeline.__call__(
        shared("sdxl"), "a red ball", height=64, width=64, num_inference_steps=2, guidance_scale=1.0,
        generator=torch.Generator().manual_seed(1),
    ).images[0]  # fmt: skip
    assert np.array_equal(pixels_of(output), np.asarray(host))


@pytest.mark.parametrize(
    ("image", "sizes", "loop"),
    [
        (None, {"height": 96, "width": 136, "stages": 2}, {"slider": [1, 2]}),
        (None, {"height": 80, "width": 128}, {"wrap": "both"}),
        (True, {"scale": 2.0}, {"mode": "official", "batch_size": 3}),
    ],
    ids=["two-stages", "seamless", "photograph"],
)
def test_a_pipeline_and_a_job_in_a_folder_give_the_same_image(tmp_path, image, sizes, loop):
    pipe, pixels = shared("sdxl"), photo(37, 51) if image else None
    settings = {"num_inference_steps": 2, "guidance_scale": 3.0}
    output = pipe("a red ball", pixels, seed=4, band=3, **sizes, **loop, **settings)
    model = from_pipeline(pipe, "a red ball", **settings)
    sliders = loop.pop("slider", [])
    config = JobConfig(patch=16, patch_multiple=2, seed=4, band=3, **loop)
    size = None if pixels is None else (37, 51)
    spec = plan_job(model, config, SizeConfig(**sizes), image_size=size, sliders=sliders)
    array = None if pixels is None else np.asarray(pixels)
    result = Job(model, spec, FolderStore(tmp_path / "job", durable=False), image=array).run()
    assert np.array_equal(result.image.array, pixels_of(output))


def test_callbacks_are_called_once_per_step_of_every_stage():
    seen = []

    def callback(pipe, step, timestep, tensors):
        seen.append((pipe.stage, step, float(timestep), tuple(tensors["latents"].shape), pipe.num_timesteps))

    shared("sdxl")("a red ball", scale=2.0, stages=2, callback_on_step_end=callback, **QUICK)
    steps = [(number, step) for number in range(3) for step in range(2)]
    assert [entry[:2] for entry in seen] == steps
    assert [entry[2] for entry in seen] == [501.0, 1.0] * 3
    assert [entry[3][2:] for entry in seen[::2]] == [(16, 16), (23, 23), (32, 32)]
    assert {entry[4] for entry in seen} == {2}


def test_callbacks_may_replace_the_latents():
    def flat(pipe, step, timestep, tensors):
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 1 else {}

    output = shared("sdxl")(
        "x", photo(40, 40), output_type="latent", callback_on_step_end=flat, **QUICK
    ).images
    assert output.shape == (1, 4, 20, 20)
    assert not output.any()


def test_callbacks_without_tensors():
    seen = []
    shared("sd")(
        "x", photo(40, 40), callback_on_step_end=lambda pipe, i, t, tensors: seen.append(tensors),
        callback_on_step_end_tensor_inputs=[], **QUICK,
    )  # fmt: skip
    assert seen == [{}, {}]


@pytest.mark.parametrize("way", ["on_patch", "callback", "flag"])
def test_an_interrupt_stops_within_one_patch(way):
    pipe = made("sdxl")
    calls = []
    pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    patches = []
    source = photo(64, 64)

    def on_patch(progress):
        patches.append(progress.calls)
        if way == "flag" and len(patches) == 3:
            pipe._interrupt = True
        return way == "on_patch" and len(patches) == 3

    def callback(p, step, timestep, tensors):
        if way == "callback":
            p._interrupt = True

    output = pipe(
        "x", source, scale=2.0, plan="grid", on_patch=on_patch, callback_on_step_end=callback, **QUICK
    )
    stopped = 4 if way == "callback" else 3  # four patches are a step
    assert patches == list(range(1, stopped + 1))
    assert len(calls) == stopped
    assert pipe.interrupt
    # the last finished image is the one that it began with
    assert np.array_equal(pixels_of(output), np.asarray(source))
    assert pipe("x", source, scale=2.0, **QUICK).images[0].size == (128, 128)  # and nothing is left behind
    assert not pipe.interrupt


def test_an_interrupt_in_the_base_image():
    pipe = shared("sdxl")
    seen = []

    def callback(p, step, timestep, tensors):
        seen.append((p.stage, step))
        p._interrupt = True

    output = pipe("x", scale=2.0, callback_on_step_end=callback, **QUICK)
    assert seen == [(0, 0)]
    assert output.images[0].size == (64, 64)


@pytest.mark.parametrize("family", FAMILIES)
def test_saving_and_loading(family, tmp_path):
    pipe = made(family)
    expected = pipe("a red ball", photo(32, 32), scale=1.5, **QUICK)
    pipe.save_pretrained(tmp_path)
    loaded = CLASSES[family].from_pretrained(tmp_path)
    host_class = next(base for base in CLASSES[family].__mro__ if base.__module__.startswith("diffusers"))
    as_host = host_class.from_pretrained(tmp_path)  # a pipeline of ours is one of theirs on disk
    as_ours = CLASSES[family].from_pipe(as_host)
    for again in (loaded, as_ours):
        again.set_progress_bar_config(disable=True)
        if family == "flux":
            again.default_sample_size = 16
        assert type(again) is CLASSES[family]
        output = again("a red ball", photo(32, 32), scale=1.5, **QUICK)
        # products are rounded by where in memory a matrix lies, so a pixel may fall to the next level
        assert np.abs(pixels_of(output).astype(int) - pixels_of(expected)).max() <= 1


def test_what_the_host_loads_goes_on_working(tmp_path):
    """LoRA and textual inversion by the host's own methods, on our class."""
    peft = pytest.importorskip("peft")
    pipe = made("sdxl")
    plain = pixels_of(pipe("a red ball", photo(32, 32), **QUICK))
    torch.manual_seed(0)
    pipe.unet.add_adapter(
        peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False), "style"
    )
    state = peft.get_peft_model_state_dict(pipe.unet, adapter_name="style")
    PixelsmithXLPipeline.save_lora_weights(tmp_path, unet_lora_layers=state)
    changed = pixels_of(pipe("a red ball", photo(32, 32), **QUICK))
    assert not np.array_equal(changed, plain)
    off = pixels_of(pipe("a red ball", photo(32, 32), cross_attention_kwargs={"scale": 0.0}, **QUICK))
    assert np.array_equal(off, plain)
    fresh = made("sdxl")
    fresh.load_lora_weights(tmp_path, adapter_name="style")
    loras = from_pipeline(fresh, "a red ball").describe()["loras"]
    assert set(loras) == {"style"}
    assert np.array_equal(pixels_of(fresh("a red ball", photo(32, 32), **QUICK)), changed)
    fresh.unload_lora_weights()
    assert np.array_equal(pixels_of(fresh("a red ball", photo(32, 32), **QUICK)), plain)


def test_textual_inversion():
    pipe = made("sd")
    plain = pixels_of(pipe("a <ball>", photo(32, 32), **QUICK))
    pipe.load_textual_inversion({"<ball>": torch.full((16,), 3.0)}, token="<ball>")
    assert not np.array_equal(pixels_of(pipe("a <ball>", photo(32, 32), **QUICK)), plain)


def test_seamless_textures():
    pipe = shared("sdxl")
    output = pipe("a red ball", height=80, width=128, wrap="both", **QUICK)
    assert output.images[0].size == (128, 80)
    assert not np.array_equal(pixels_of(output), pixels_of(pipe("a red ball", height=80, width=128, **QUICK)))


def test_opposite_sides_of_a_seamless_base_image_join():
    """With a model that smooths within its patch, a border that no patch crosses shows."""
    jumps = {}
    for wrap in ("none", "both"):
        config = JobConfig(patch=8, patch_multiple=1, wrap=wrap, band=0)
        spec = JobSpec(sizes=(), source_size=(48, 64), config=config)
        state = generate_seamless(smoother(), spec, Hooks())[1].data
        inside = state.diff(dim=1).abs().mean()
        jumps[wrap] = float((state[:, 0] - state[:, -1]).abs().mean() / inside)
    assert jumps["none"] > 3
    assert jumps["both"] < 1.5


def smoother():
    def predict(x, timestep, origins):
        wide = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
        return torch.nn.functional.avg_pool2d(wide, 3, stride=1)

    return CallableModel(
        predict=predict,
        vae=tiny_vae().eval(),
        scheduler=diffusers.DDIMScheduler(clip_sample=False, prediction_type="sample"),
        num_inference_steps=20,
        patch=8,
    )


def test_offloading(monkeypatch):
    """Weights that are loaded layer by layer, here to the CPU itself, change nothing."""
    pipe = made("sdxl")
    small = pixels_of(pipe("a red ball", photo(32, 32), **QUICK))
    monkeypatch.setattr(specs, "default_tiling", lambda vae: Tiling(statistics="tile"))
    large = pixels_of(pipe("a red ball", photo(200, 200), scale=2.0, plan="grid", **QUICK))
    monkeypatch.undo()
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        accelerate.cpu_offload(getattr(pipe, name), execution_device=torch.device("cpu"))
    assert pipe.vae.device.type == "meta"
    assert np.array_equal(pixels_of(pipe("a red ball", photo(32, 32), **QUICK)), small)
    monkeypatch.setattr(specs, "default_tiling", lambda vae: Tiling())
    again = pixels_of(pipe("a red ball", photo(200, 200), scale=2.0, plan="grid", **QUICK))
    assert np.array_equal(again, large)


def test_forms_of_the_output():
    pipe, source = shared("sdxl"), photo(32, 40)
    output = pipe("x", source, output_type="pil", **QUICK)
    (array,) = pipe("x", source, output_type="np", return_dict=False, **QUICK)
    tensor = pipe("x", source, output_type="pt", **QUICK).images
    latents = pipe("x", source, output_type="latent", **QUICK).images
    assert np.array_equal((array[0] * 255).round(), pixels_of(output))
    assert tensor.shape == (1, 3, 64, 80)
    assert latents.shape == (1, 4, 16, 20)
    base = pipe("x", height=64, width=64, output_type="latent", **QUICK).images
    assert base.shape == (1, 4, 16, 16)


def test_a_safety_checker_sees_the_result():
    class Suspicious:
        def __init__(self, flag):
            self.flag, self.seen = flag, []

        def __call__(self, images, clip_input):
            self.seen.append(images.shape)
            return images, [self.flag]

    pipe = made("sd")
    pipe.feature_extractor = lambda images, return_tensors: Shown()
    for flag in (False, True):
        pipe.safety_checker = Suspicious(flag)
        output = pipe("x", photo(40, 32), scale=2.0, **QUICK)
        assert output.nsfw_content_detected == [flag]
        assert pixels_of(output).any() is np.bool_(not flag)
        assert pipe.safety_checker.seen == [(1, 80, 64, 3)]


class Shown:
    """What a feature extractor returns."""

    pixel_values = torch.zeros(1)

    def to(self, device):
        return self


def test_the_global_generators_are_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    shared("sdxl")("x", photo(32, 32), num_inference_steps=2, seed=1)
    shared("sdxl")("x", photo(32, 32), num_inference_steps=2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("size", "held", "expected"),
    [
        ({}, None, (128, 128)),
        ({"scale": 3.0}, None, (192, 192)),
        ({"scale": 2.0}, (37, 51), (76, 104)),
        ({"height": 100}, (37, 51), (100, 136)),
        ({"width": 100}, (37, 51), (72, 100)),
        ({"height": 96, "width": 32, "fit": "crop"}, (37, 51), (96, 32)),
        ({"width": 256}, None, (256, 256)),
    ],
)
def test_sizes(size, held, expected):
    config = JobConfig(patch=16, patch_multiple=2)
    found = plan_job(from_pipeline(shared("sdxl")), config, SizeConfig(**size), image_size=held)
    assert found.size == expected


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"scale": 2.0, "height": 64}, ValueError, "scale and height or width cannot both be given"),
        ({"scale": 0.0}, ValueError, "scale must be above 0, got 0"),
        (
            {"height": 66, "width": 64},
            ValueError,
            r"of 4 pixels, got height 66 and width 64; the nearest are height 64 and",
        ),
        (
            {"height": 4, "width": 64, "fit": "crop"},
            ValueError,
            "canvas must be at least 2 latents wide and high",
        ),
        ({"stages": 0}, ValueError, "stages must be at least 1, got 0"),
        ({"slider": [0.5, 0.5]}, ValueError, "one slider, or one for each of the 1 stages, got 2"),
        ({"slider": 9}, ValueError, "slider must not exceed the 2 steps, got 9"),
        ({"wrap": "round"}, ValueError, "wrap must be one of"),
        ({"output_type": "jpg"}, ValueError, "output_type must be one of"),
        ({"strength": 0.3}, TypeError, "unknown settings: strength; those of ModelOptions"),
        ({"image": "cat.png"}, ValueError, "cat.png does not exist"),
        (
            {"image": [photo(4, 4)]},
            TypeError,
            "must be a path, .* a tensor, got list",
        ),
        ({"seed": -1}, ValueError, r"seed must lie in \[0, 2\*\*64\), got -1"),
        (
            {"callback_on_step_end_tensor_inputs": ["latents", "add_time_ids"]},
            ValueError,
            r"callbacks can be given latents and prompt_embeds only, got add_time_ids",
        ),
    ],
)
def test_wrong_calls_are_refused_before_anything_runs(settings, error, message):
    pipe = made("sdxl")
    calls = []
    pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))
    given = {"image": photo(32, 32), **QUICK, **settings}
    with pytest.raises(error, match=message):
        pipe("x", **given)
    assert calls == []


def test_schedulers_without_closed_form():
    pipe = made("sd")
    pipe.scheduler = diffusers.PNDMScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(ValueError, match=r"got PNDMScheduler; set pipe\.scheduler = DDIMScheduler"):
        pipe("x", photo(32, 32), **QUICK)


def test_our_class_by_name():
    assert pipeline_for("StableDiffusionXLPipeline") is PixelsmithXLPipeline
    assert pipeline_for("PixelsmithFluxPipeline") is PixelsmithFluxPipeline


def test_a_function_enlarges_in_memory():
    """A job in memory needs nothing of diffusers but a scheduler and an autoencoder."""
    spec = JobSpec(sizes=((44, 64),), source_size=(16, 20), config=JobConfig(patch=8, patch_multiple=1))
    result = Job(smoother(), spec, MemoryStore(), image=np.asarray(photo(16, 20))).run()
    assert result.image.array.shape == (44, 64, 3)
    assert result.latents.size == (11, 16)


def test_images_of_any_form_are_enlarged(tmp_path):
    """Upright, in sRGB, transparent parts on white: the same pixels give the same result."""
    image = photo(40, 32)
    pixels = np.asarray(image)
    image.save(tmp_path / "a.png")
    turned = Image.fromarray(np.rot90(pixels))
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "turned.png", exif=turned.getexif())
    forms = [tmp_path / "turned.png", str(tmp_path / "a.png"), image.convert("RGBA"), pixels,
             torch.from_numpy(pixels.copy()).permute(2, 0, 1), pixels / np.float32(255)]  # fmt: skip
    expected = pixels_of(shared("sdxl")("x", image, **QUICK))
    for form in forms:
        assert np.array_equal(pixels_of(shared("sdxl")("x", form, **QUICK)), expected)
