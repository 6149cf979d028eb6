# SPDX-License-Identifier: Apache-2.0
"""ControlNets of SD3 and FLUX, which take their image as latents, and those of SDXL by the command line."""

import diffusers
import numpy as np
import pytest
import torch
from common_kernels.runtime.cli import run_app
from PIL import Image
from pixelsmith.adapters import Control, from_pipeline, load_model
from pixelsmith.adapters.control import LatentControls
from pixelsmith.adapters.flux import pack, position_ids, unpack
from pixelsmith.adapters.loading import load_control
from pixelsmith.cli import app
from pixelsmith.config import LoadingConfig
from pixelsmith.io.vae import TiledVAE
from pixelsmith.store import Canvas
from pixelsmith.store.rows import ArrayRows
from tiny_models import tiny_pipeline

# diffusers warns of its own use of an old name
pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")


def picture(side, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC)


def randomized(net):
    """The last layers of a ControlNet are zero before training, which would hide everything."""
    generator = torch.Generator().manual_seed(1)
    for weights in net.parameters():
        weights.data = 0.2 * torch.randn(weights.shape, generator=generator)
    return net.eval().requires_grad_(False)


def sd3_net(**changes):
    return randomized(
        diffusers.SD3ControlNetModel(
            sample_size=16, num_layers=2, attention_head_dim=8, num_attention_heads=4,
            joint_attention_dim=32, caption_projection_dim=32, pooled_projection_dim=32,
            pos_embed_max_size=24, **{"force_zeros_for_pooled_projection": False, **changes},
        )
    )  # fmt: skip


def flux_net(**changes):
    return randomized(
        diffusers.FluxControlNetModel(
            num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=[4, 6, 6], **changes,
        )
    )  # fmt: skip


def noise(count):
    return torch.randn(count, 16, 16, 16, generator=torch.Generator().manual_seed(0))


def latents_of(pipe, image, shift=True):
    rows = ArrayRows(np.asarray(image))
    found = torch.cat([part for _, part in TiledVAE(pipe.vae).encode(rows)], dim=1)[None]
    config = pipe.vae.config
    return found if shift else found + config.shift_factor * config.scaling_factor


@pytest.mark.parametrize("shift", [True, False])
def test_sd3_by_the_formula_of_diffusers(shift):
    """Those that were trained without the pooled prompt were trained without the shift, too."""
    pipe, net = tiny_pipeline("sd3"), sd3_net(force_zeros_for_pooled_projection=not shift)
    control = Control(model=net, image=picture(64), scale=0.7)
    model = from_pipeline(pipe, "a ball", controls=[control], num_inference_steps=4, guidance_scale=1.0)
    denoiser, x = model.denoiser((64, 64), (16, 16)), noise(1)
    prompt = model.condition()
    with torch.no_grad():
        found = denoiser.predict(x, 1, [(0, 0)])
        given = {"hidden_states": x, "timestep": denoiser.timestep(1).expand(1), "return_dict": False}
        pooled = prompt.pooled if shift else torch.zeros_like(prompt.pooled)
        blocks = net(
            **given, controlnet_cond=latents_of(pipe, control.image, shift), conditioning_scale=0.7,
            encoder_hidden_states=prompt.embeds, pooled_projections=pooled,
        )[0]  # fmt: skip
        expected = pipe.transformer(
            **given, encoder_hidden_states=prompt.embeds, pooled_projections=prompt.pooled,
            block_controlnet_hidden_states=blocks,
        )[0]  # fmt: skip
        plain = from_pipeline(pipe, "a ball", num_inference_steps=4, guidance_scale=1.0)
        assert not torch.allclose(
            plain.denoiser((64, 64), (16, 16)).predict(x, 1, [(0, 0)]), found, atol=1e-3
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", [None, 1])
def test_flux_by_the_formula_of_diffusers(mode):
    pipe, net = tiny_pipeline("flux"), flux_net(num_mode=None if mode is None else 3)
    control = Control(model=net, image=picture(64), scale=0.7, mode=mode)
    model = from_pipeline(pipe, "a ball", controls=[control], num_inference_steps=4)
    denoiser, x = model.denoiser((64, 64), (16, 16)), noise(1)
    prompt = model.condition()
    with torch.no_grad():
        found = denoiser.predict(x, 1, [(0, 0)])
        given = {
            "hidden_states": pack(x), "timestep": denoiser.timestep(1).expand(1) / 1000, "return_dict": False,
            "txt_ids": torch.zeros(prompt.embeds.shape[1], 3), "img_ids": position_ids(8, 8),
            "encoder_hidden_states": prompt.embeds, "pooled_projections": prompt.pooled,
        }  # fmt: skip
        double, single = net(
            **given, controlnet_cond=pack(latents_of(pipe, control.image)), conditioning_scale=0.7,
            controlnet_mode=None if mode is None else torch.tensor([[mode]]),
        )  # fmt: skip
        expected = pipe.transformer(
            **given, guidance=torch.tensor([3.5]), controlnet_block_samples=double,
            controlnet_single_block_samples=single,
        )[0]  # fmt: skip
    torch.testing.assert_close(found, unpack(expected, 16, 16), rtol=1e-4, atol=1e-4)


def test_a_union_net_of_sdxl_by_the_formula_of_diffusers(tmp_path):
    pipe = tiny_pipeline("sdxl")
    names = (
        "in_channels", "down_block_types", "block_out_channels", "layers_per_block", "norm_num_groups",
        "cross_attention_dim", "transformer_layers_per_block", "attention_head_dim", "use_linear_projection",
        "addition_embed_type", "addition_time_embed_dim", "projection_class_embeddings_input_dim",
    )  # fmt: skip
    width = pipe.unet.config.block_out_channels[0]
    net = diffusers.ControlNetUnionModel(
        **{name: pipe.unet.config[name] for name in names}, conditioning_embedding_out_channels=(8, 8, 8),
        num_control_type=4, num_trans_channel=width, num_trans_head=2, num_proj_channel=width,
    )  # fmt: skip
    net = randomized(net)
    found = []
    for mode in (1, 2):
        control = Control(model=net, image=picture(64), scale=0.7, mode=mode)
        model = from_pipeline(pipe, "a ball", controls=[control], num_inference_steps=2, guidance_scale=1.0)
        patch = (model.patch, model.patch)
        size = (model.patch * model.vae_scale_factor,) * 2
        denoiser, prompt = model.denoiser(size, patch), model.condition()
        x = torch.randn(1, model.channels, *patch, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found.append(denoiser.predict(x, 1, [(0, 0)]))
            added = denoiser.added(prompt, [(0, 0)], False)
            given = (denoiser.solver.scale_input(x, 1), denoiser.timestep(1))
            down, middle = net(
                *given, encoder_hidden_states=prompt.embeds, conditioning_scale=0.7, added_cond_kwargs=added,
                controlnet_cond=[control.crop([(0, 0)], patch, size, model.vae_scale_factor)],
                control_type=torch.eye(4)[mode][None], control_type_idx=[mode], return_dict=False,
            )  # fmt: skip
            expected = pipe.unet(
                *given, encoder_hidden_states=prompt.embeds, added_cond_kwargs=added, return_dict=False,
                down_block_additional_residuals=down, mid_block_additional_residual=middle,
            )[0]  # fmt: skip
        torch.testing.assert_close(found[-1], expected, rtol=1e-4, atol=1e-4)
        assert model.base_image((64, 64), 0).shape == (64, 64, 3)
    assert not torch.allclose(*found, atol=1e-3)
    with pytest.raises(ValueError, match=r"the mode of this control must lie in \[0, 4\), got None"):
        Control(model=net, image=picture(8))
    net.save_pretrained(tmp_path)
    picture(8).save(tmp_path / "a.png")
    loading = LoadingConfig(controlnet=str(tmp_path), control_image=str(tmp_path / "a.png"), control_mode=3)
    (control,) = load_control(loading, torch.float32, torch.device("cpu"))
    assert (control.mode, control.num_kinds) == (3, 4)
    with pytest.raises(ValueError, match="control_mode needs a controlnet"):
        LoadingConfig(control_mode=1)


def test_each_patch_has_its_part_of_the_image_and_features_add_up():
    """Features of a kind that a network does not have stay away."""
    canvas, seen = Canvas(noise(1)[0].repeat(1, 3, 2)), []
    first = Control(model=None, image=picture(8))
    early = Control(model=None, image=picture(8), end=0.5)

    def call(control, latents):
        seen.append(latents)
        return [latents, 2 * latents], None

    controls = LatentControls(each=[first, early], latents=lambda control: canvas)
    origins, patch = [(0, 0), (32, 10)], (16, 16)
    blocks, single = controls.features(0, 4, origins, patch, call)
    expected = torch.stack([canvas.data[:, :16, :16], canvas.data[:, 32:48, 10:26]])
    assert all(torch.equal(latents, expected) for latents in seen)
    assert torch.equal(blocks[0], 2 * expected)
    assert torch.equal(blocks[1], 4 * expected)
    assert single is None
    blocks, _ = controls.features(3, 4, origins, patch, call)  # where one has ended
    assert torch.equal(blocks[0], expected)
    assert LatentControls(each=[early], latents=None).features(3, 4, origins, patch, call) == []


@pytest.mark.parametrize(("family", "net"), [("sd3", sd3_net), ("flux", flux_net)])
def test_base_images_follow_the_image_too(family, net):
    images = []
    for seed in (0, 5):
        control = Control(model=net(), image=picture(64, seed))
        model = from_pipeline(tiny_pipeline(family), "a", controls=[control], num_inference_steps=2)
        images.append(model.base_image((64, 64), 0))
    assert images[0].shape == (64, 64, 3)
    assert not np.array_equal(*images)


def test_a_tile_control_net_from_a_folder_and_by_command(tmp_path, monkeypatch):
    """The image that is enlarged is the control image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    pipe = tiny_pipeline("sdxl")
    pipe.save_pretrained("sdxl")
    net = diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 8, 8))
    randomized(net).save_pretrained("tile")
    picture(32).save("a.png")
    loading = LoadingConfig(controlnet="tile", control_image="a.png", control_scale=0.5)
    about = load_model("sdxl", "x", device="cpu", loading=loading).describe()["controls"]
    assert (about[0]["model"], about[0]["scale"]) == ("ControlNetModel", 0.5)
    command = ["upscale", "a.png", "--model", "sdxl", "--num-inference-steps", "1", "--scale", "1.5"]
    assert run_app(app, [*command, "-o", "plain.png"]) == 0
    assert run_app(app, [*command, "-o", "steered.png", "--controlnet", "tile"]) == 0
    made = [np.asarray(Image.open(name)) for name in ("plain.png", "steered.png")]
    assert not np.array_equal(*made)
    assert run_app(app, [*command, "-o", "b.png", "--control-image", "a.png"]) == 2
    assert run_app(app, ["generate", "x", *command[2:], "-o", "c.png", "--controlnet", "tile"]) == 2
