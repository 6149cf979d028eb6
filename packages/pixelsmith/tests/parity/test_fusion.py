# SPDX-License-Identifier: Apache-2.0
"""Laws of the fusion as the loop calls it; the operator itself is tested where it lives."""

import math

import pytest
import torch
from pixelsmith import JobConfig
from pixelsmith.core.fusion import fuse_patches


def pair(toys, *shape):
    return toys.latents(*shape, seed=1).unsqueeze(0), toys.latents(*shape, seed=2).unsqueeze(0)


@pytest.mark.parametrize("fusion", ["guarded", "official"])
def test_fusion_of_a_patch_with_itself_is_the_patch(toys, fusion):
    x = toys.latents(4, 128, 128)[None] / 0.8
    assert (fuse_patches(x, x, toys.job(fusion=fusion)) - x).abs().max() <= 2e-6


@pytest.mark.parametrize("shape", [(4, 32, 32), (3, 17, 21)])
def test_amplitudes_stay_and_phases_are_circular_means(toys, shape):
    x, guide = pair(toys, *shape)
    before, other = torch.fft.rfft2(x), torch.fft.rfft2(guide)
    after = torch.fft.rfft2(fuse_patches(x, guide, toys.job(fusion="guarded")))
    assert torch.allclose(after.abs(), before.abs(), rtol=1e-4, atol=1e-4)
    mean = before / before.abs() + other / other.abs()
    inner = mean.abs() > 1e-2
    inner[..., 0] = inner[..., -1] = False  # bins that hold their own mirror images
    turn = (after / after.abs()) * (mean / mean.abs()).conj()
    assert turn[inner].angle().abs().max() < 1e-4


def test_only_the_phases_of_the_guidance_matter_and_scale_passes_through(toys):
    x, guide = pair(toys, 4, 32, 32)
    fused = fuse_patches(x, guide, toys.job())
    assert torch.allclose(fuse_patches(x, 7 * guide, toys.job()), fused, atol=1e-5)
    # a power of two is exact: rounding would turn bins whose phases are nearly opposite
    assert torch.allclose(fuse_patches(4 * x, guide, toys.job()), 4 * fused, atol=1e-5)


def test_the_mean_of_two_shifts_is_no_shift():
    """A signal moved by +d and by -d has it in the middle, for frequencies below 1 / (4 d)."""
    d, side = 3, 64
    columns = torch.arange(side, dtype=torch.float64)
    signal = sum(
        math.cos(k) * torch.cos(2 * math.pi * k * columns / side + k) for k in range(1, side // (4 * d))
    )
    image = signal.expand(1, 1, side, side).clone()
    fused = fuse_patches(image.roll(d, -1), image.roll(-d, -1), JobConfig(patch=side))
    assert (fused - image).abs().max() < 1e-4


def test_means_of_opposite_sign(toys):
    x, guide = pair(toys, 2, 16, 16)
    x = x - x.mean((2, 3), keepdim=True) + 0.5
    guide = guide - guide.mean((2, 3), keepdim=True) - 0.5
    kept = fuse_patches(x, guide, toys.job())
    assert (kept.mean((2, 3)) - 0.5).abs().max() < 1e-6
    for lost in (
        fuse_patches(x, guide, toys.job(fusion="official")),
        fuse_patches(x, guide, toys.job(mode="official")),
    ):
        assert lost.mean((2, 3)).abs().max() < 1e-6
    assert fuse_patches(x, guide, toys.job(fusion="off")) is x
