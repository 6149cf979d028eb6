# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from semanir.restoring.temporal import TemporalBlend, estimate_motion, warp
from torch.nn import functional as F


def texture(height=72, width=96, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rough = torch.rand(1, 3, height // 4, width // 4, generator=generator)
    return F.interpolate(rough, size=(height, width), mode="bicubic").clamp(0, 1)[0]


@pytest.mark.parametrize("motion", [(0, 0), (1, 0), (-3, 2), (7, -5)])
def test_motion_of_a_moved_image_is_found(motion):
    right, down = motion
    image = texture()
    moved = image.roll((down, right), (1, 2))
    found = estimate_motion(image, moved)
    inner = found[:, 12:-12, 12:-12]
    assert (inner - torch.tensor([right, down], dtype=torch.float32)[:, None, None]).abs().median() == 0
    again = warp(moved, found)[:, 12:-12, 12:-12]
    assert (again - image[:, 12:-12, 12:-12]).abs().mean() < 0.2 * (moved - image)[
        :, 12:-12, 12:-12
    ].abs().mean() + 1e-3


def test_warping_by_nothing_is_the_image():
    image = texture()
    torch.testing.assert_close(warp(image, torch.zeros(2, *image.shape[1:])), image, atol=1e-5, rtol=0)


def window(count=8, sigma=4.0, speed=2):
    """Frames of a window that pans over a texture, clean and with noise as a network leaves it."""
    wide = texture(72, 144)
    clean = [wide[:, :, speed * t : speed * t + 96] for t in range(count)]
    generator = torch.Generator().manual_seed(1)
    return clean, [c + sigma / 255 * torch.randn(c.shape, generator=generator) for c in clean]


def error(frames, clean):
    return (
        torch.stack([(a - b).square().mean() for a, b in zip(frames, clean, strict=True)]).mean().sqrt() * 255
    )


@pytest.mark.parametrize("speed", [0, 2])
def test_noise_gets_less_along_the_motion(speed):
    clean, noisy = window(speed=speed)
    blend = TemporalBlend(0.6)
    blended = [blend(frame) for frame in noisy]
    assert error(blended, clean) < 0.95 * error(noisy, clean)


def test_flicker_gets_less():
    _, noisy = window(speed=0)
    blend = TemporalBlend(0.6)
    blended = [blend(frame) for frame in noisy]
    before, after = (torch.stack(frames).diff(dim=0).square().mean().sqrt() for frames in (noisy, blended))
    assert after < 0.7 * before


def test_a_cut_leaves_the_frame_as_it_is():
    blend = TemporalBlend(0.8)
    blend(torch.zeros(3, 40, 40))
    frame = torch.full((3, 40, 40), 0.5)
    torch.testing.assert_close(blend(frame), frame)
    other = texture(40, 60)
    torch.testing.assert_close(blend(other), other)  # another size begins anew


def test_no_pixel_is_moved_by_more_than_the_tolerance():
    blend = TemporalBlend(0.9)
    blend(texture(seed=1))
    frame = texture(seed=2)
    assert (blend(frame) - frame).abs().max() <= 4 / 255 + 1e-6


def test_without_weight_every_frame_stays_alone():
    blend, frame = TemporalBlend(0.0), texture()
    blend(texture(seed=1))
    assert blend(frame) is frame


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (5, 5), (31, 8)])
def test_small_frames(size):
    blend = TemporalBlend(0.5)
    frame = torch.from_numpy(np.random.default_rng(0).random((3, *size), dtype=np.float32))
    blend(frame)
    torch.testing.assert_close(blend(frame), frame, atol=1e-5, rtol=0)
