# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from pixelsmith.io.margins import Framed, Margin
from pixelsmith.io.norms import GlobalNorms
from pixelsmith.io.vae import TiledVAE, Tiling, default_tiling
from pixelsmith.store import Canvas
from pixelsmith.store.rows import ArrayRows
from torch import nn


def make_vae(widths=(8, 8), seed=0, **options):
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=0.7,
        **{"mid_block_add_attention": False, **options},
    )
    return vae.eval().requires_grad_(False)


def without_norms(vae):
    for parent in list(vae.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(parent, name, nn.Identity())
    return vae


def make_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def latents(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ramp = torch.linspace(-2, 2, height)[:, None] + torch.linspace(-1, 2, width)
    return ramp + torch.randn(4, height, width, generator=generator)


def encode(tiled, image):
    return torch.cat([part for _, part in tiled.encode(ArrayRows(image))], dim=1)


def decode(tiled, z):
    return np.concatenate([rows for _, rows in tiled.decode(Canvas(z))]).astype(int)


WHOLE = Tiling(tile=10_000, halo=12)


@pytest.mark.parametrize("size", [(34, 20), (13, 40)])
def test_halo_makes_tiles_exact_where_nothing_else_couples_them(size):
    vae = without_norms(make_vae())
    for weight in vae.parameters():
        weight.mul_(1.5 if weight.ndim == 4 else 1)
    tiled = TiledVAE(vae, Tiling(tile=7, halo=12, statistics="tile"))
    whole = TiledVAE(vae, Tiling(tile=10_000, halo=12, statistics="tile"))
    image = make_image(size[0] * 2, size[1] * 2)
    torch.testing.assert_close(encode(tiled, image), encode(whole, image), rtol=1e-5, atol=1e-5)
    z = latents(*size)
    assert np.abs(decode(tiled, z) - decode(whole, z)).max() <= 1
    bare = TiledVAE(vae, Tiling(tile=7, halo=0, statistics="tile"))
    assert np.abs(decode(bare, z) - decode(whole, z)).max() > 1


def test_one_tile_is_what_diffusers_does():
    vae = make_vae((8, 8, 8), mid_block_add_attention=True)
    tiled = TiledVAE(vae, Tiling())
    image = make_image(24, 32)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    expected = vae.encode(pixels).latent_dist.mode() * 0.7
    torch.testing.assert_close(encode(tiled, image), expected[0])
    z = latents(6, 8)
    plain = ((vae.decode(z[None] / 0.7).sample[0].clamp(-1, 1) + 1) * 127.5).round()
    np.testing.assert_array_equal(decode(tiled, z), plain.permute(1, 2, 0).numpy())


def test_statistics_of_the_whole_make_tiles_exact():
    """If all windows together are as large as the image, the statistics are exact."""
    vae = make_vae()
    z = latents(38, 44)
    expected = decode(TiledVAE(vae, WHOLE), z)

    def error(**options):
        return np.abs(decode(TiledVAE(vae, Tiling(tile=16, halo=12, samples=64, **options)), z) - expected)

    assert error().max() <= 1
    assert error(statistics="tile").max() > 20
    image = make_image(76, 84)
    tiled, whole = TiledVAE(vae, Tiling(tile=16, halo=12, samples=64)), TiledVAE(vae, WHOLE)
    torch.testing.assert_close(encode(tiled, image), encode(whole, image), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("samples", [4, 32])
def test_flat_parts_show_no_tile_borders(samples):
    """Beyond the reach of edges, a flat part is flat to the pixel."""
    vae = make_vae()
    z = torch.full((4, 100, 96), 0.8)
    z[:, 46:54, 44:52] = 3 * latents(8, 8)

    def steps(statistics):
        tiling = Tiling(tile=12, halo=14, statistics=statistics, samples=samples)
        corner = decode(TiledVAE(vae, tiling), z)[28 : 2 * 46 - 28, 28 : 2 * 44 - 28]
        return max(np.abs(np.diff(corner, axis=axis)).max() for axis in (0, 1))

    assert steps("global") <= 1
    if samples == 4:
        assert steps("tile") > 2


def test_wrapped_images_go_on_across_their_edges():
    """What is moved round the corner comes back moved, and the same."""
    vae = TiledVAE(without_norms(make_vae()), Tiling(tile=6, halo=14, statistics="tile"))
    margin = Margin(4, vae.factor, (True, True))

    def passed(image):
        frame = Canvas(encode(vae, margin.extend(ArrayRows(image)).read(0, 24 + 2 * margin.above)))
        z = margin.inside(frame)
        rows = margin.crop(vae.decode(Framed(Canvas(z.data.clone()), frame, margin)), image.shape[:2])
        return z.data, np.concatenate([part for _, part in rows])

    image = make_image(24, 36)
    (z, there), (moved, back) = passed(image), passed(np.roll(image, (10, 14), (0, 1)))
    torch.testing.assert_close(moved, z.roll((5, 7), (1, 2)))
    assert np.abs(back.astype(int) - np.roll(there, (10, 14), (0, 1))).max() <= 1


def test_scales_follow_the_configuration():
    z = latents(4, 4)[None]
    shifted = TiledVAE(make_vae(shift_factor=0.3))
    torch.testing.assert_close(shifted.scale(z), (z - 0.3) * 0.7)
    by_channel = TiledVAE(make_vae(latents_mean=[1.0, 2, 3, 4], latents_std=[2.0, 2, 2, 4]))
    torch.testing.assert_close(by_channel.scale(z)[:, 3], (z[:, 3] - 4) * 0.7 / 4)
    for vae in (shifted, by_channel):
        torch.testing.assert_close(vae.unscale(vae.scale(z)), z)


def test_the_network_is_left_as_it_was():
    vae = make_vae()
    rows = TiledVAE(vae, Tiling(tile=4, halo=2)).decode(Canvas(latents(9, 9)))
    next(rows)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    rows.close()
    vae.use_tiling = True
    list(TiledVAE(vae, Tiling(tile=4, halo=2)).decode(Canvas(latents(9, 9))))
    assert vae.use_tiling
    assert not any(module._forward_hooks for module in vae.modules())
    with GlobalNorms(vae), pytest.raises(RuntimeError):
        vae.decode(torch.zeros(1, 3, 4, 4))
    assert not any(module._forward_hooks for module in vae.modules())


def test_half_precision_is_raised_while_it_would_overflow():
    seen = []
    vae = make_vae(force_upcast=True).half()
    vae.decoder.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    list(TiledVAE(vae).decode(Canvas(latents(4, 4))))
    assert seen == [torch.float32]
    assert vae.dtype == torch.float16


def test_tiny_autoencoders_are_used_alike():
    torch.manual_seed(0)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=4,
    )
    vae.register_to_config(block_out_channels=(8, 8))
    assert encode(TiledVAE(vae), make_image(8, 12)).shape == (4, 4, 6)


def test_progress_counts_tiles():
    reported = []
    tiled = TiledVAE(make_vae(), Tiling(tile=4, halo=1, statistics="tile"))
    list(tiled.decode(Canvas(latents(8, 10)), on_tile=lambda done, total: reported.append((done, total))))
    assert reported == [(number, 6) for number in range(1, 7)]


@pytest.mark.parametrize("start", [5, 8, 12])
def test_a_call_goes_on_where_another_was_cut_short(start):
    """Incomplete rows of tiles are computed again."""
    tiled, reported = TiledVAE(make_vae(), Tiling(tile=4, halo=2, samples=3)), []
    z = latents(12, 10)
    whole = dict(tiled.decode(Canvas(z)))
    rest = tiled.decode(Canvas(z), lambda *done: reported.append(done), start=2 * start)
    found = dict(rest)
    assert sorted(found) == [top for top in (0, 8, 16) if top + 8 > 2 * start]
    assert all(np.array_equal(found[top], whole[top]) for top in found)
    assert reported[:1] == ([(4, 9)] if start < 8 else [(7, 9)] if start < 12 else [])
    image = ArrayRows(make_image(24, 20))
    parts = dict(tiled.encode(image))
    found = dict(tiled.encode(image, start=start))
    assert sorted(found) == [top for top in (0, 4, 8) if top + 4 > start]
    assert all(torch.equal(found[top], parts[top]) for top in found)


def test_wrong_calls_are_named():
    with pytest.raises(TypeError, match="the pipeline has no vae"):
        TiledVAE(None)
    tiled = TiledVAE(make_vae((8, 8, 8)))
    with pytest.raises(
        ValueError,
        match="got height 30 and width 33; the nearest are height 32 and width 32",
    ):
        tiled.size(30, 33)
    with pytest.raises(ValueError, match="must have the 4 channels of the vae, got 3"):
        next(tiled.decode(Canvas(torch.zeros(3, 4, 4))))
    with pytest.raises(ValueError, match="must be at least 1 and halo at least 0"):
        Tiling(tile=0)
    with pytest.raises(ValueError, match="statistics must be 'global' or 'tile', got 'none'"):
        Tiling(statistics="none")
    assert default_tiling(make_vae()).tile == 32
