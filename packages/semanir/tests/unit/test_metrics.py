# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch
from semanir.metrics import psnr, psnr_b, rgb_to_y, ssim
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio_with_blocked_effect


def pair(*shape):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(shape, generator=generator, dtype=torch.float64)
    noisy = (image + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    return image, noisy


def test_psnr_of_a_known_error():
    image = torch.zeros(2, 3)
    assert psnr(image, torch.full((2, 3), 0.01)).item() == pytest.approx(40, abs=1e-4)
    assert psnr(image, torch.full((2, 3), 2.55), data_range=255).item() == pytest.approx(40, abs=1e-4)


def test_psnr_of_integers_does_not_wrap():
    found = psnr(torch.zeros(4, dtype=torch.uint8), torch.full((4,), 255, dtype=torch.uint8), data_range=255)
    assert found.item() == pytest.approx(0, abs=1e-5)


def test_psnr_of_equal_images_is_infinite():
    assert math.isinf(psnr(torch.ones(3), torch.ones(3)).item())


def test_psnr_of_different_shapes_is_refused():
    with pytest.raises(ValueError, match="one shape"):
        psnr(torch.zeros(2, 3), torch.zeros(3))


@pytest.mark.parametrize("shape", [(1, 11, 11), (3, 31, 24)])
def test_ssim_is_that_of_skimage_where_the_window_fits(shape):
    image, noisy = pair(*shape)
    _, full = structural_similarity(
        image.numpy(),
        noisy.numpy(),
        channel_axis=0,
        data_range=1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    assert ssim(noisy, image).item() == pytest.approx(full[:, 5:-5, 5:-5].mean(), abs=1e-10)


def test_grl_pads_with_zeros():
    image, noisy = pair(1, 15, 13)
    inner = ssim(noisy, image, mode="grl")
    padded = [torch.nn.functional.pad(each, (5, 5, 5, 5)) for each in (noisy, image)]
    assert inner.item() == pytest.approx(ssim(*padded).item(), abs=1e-5)
    assert ssim(image, image, mode="grl").item() == pytest.approx(1, abs=1e-6)
    assert ssim(image, image).item() == pytest.approx(1, abs=1e-12)


def test_ssim_of_flat_images_is_its_formula():
    a, b = torch.full((1, 12, 12), 0.2), torch.full((1, 12, 12), 0.6)
    expected = (2 * 0.2 * 0.6 + 0.01**2) / (0.2**2 + 0.6**2 + 0.01**2)
    assert ssim(a, b).item() == pytest.approx(expected, abs=1e-6)


def test_ssim_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(torch.zeros(1, 10, 20), torch.zeros(1, 10, 20))
    with pytest.raises(ValueError, match=r"\(C, H, W\)"):
        ssim(torch.zeros(1, 12, 20), torch.zeros(1, 12, 21))


class TestPSNRB:
    def test_steps_across_blocks_are_error_by_hand(self):
        # two blocks side by side, 0 and 0.1: 8 pairs across and 8 x 14 + 7 x 16 inside, which are equal
        target = torch.zeros(1, 8, 16, dtype=torch.float64)
        image = target.clone()
        image[..., 8:] = 0.1
        expected = 0.01 / 2 + math.log2(8) / math.log2(8) * 0.01
        assert psnr_b(image, target).item() == pytest.approx(-10 * math.log10(expected), abs=1e-9)

    def test_steps_inside_blocks_are_not(self):
        image = torch.zeros(1, 16, 16, dtype=torch.float64)
        image[..., 4:] = 0.1
        target = torch.full_like(image, 0.05)
        assert psnr_b(image, target).item() == pytest.approx(psnr(image, target).item(), abs=1e-9)

    def test_each_channel_counts_alone(self):
        image, target = pair(3, 24, 40)
        each = [psnr_b(a[None], b[None]).item() for a, b in zip(image, target, strict=True)]
        assert psnr_b(image, target).item() == pytest.approx(sum(each) / 3)

    def test_is_close_to_that_of_torchmetrics_which_counts_a_border_more(self):
        target = torch.rand(1, 160, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 10
        image = target + (torch.arange(200) // 8 % 2) * 0.05  # blocks of two shades
        theirs = peak_signal_noise_ratio_with_blocked_effect(image[None], target[None], data_range=1.0)
        assert psnr_b(image, target).item() == pytest.approx(theirs.item(), abs=0.3)
        assert psnr_b(image, target).item() < psnr(image, target).item() - 0.5

    def test_refuses_what_it_cannot_compare(self):
        with pytest.raises(ValueError, match=r"\(C, H, W\)"):
            psnr_b(torch.zeros(1, 1, 8), torch.zeros(1, 1, 8))


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [((0, 0, 0), 16), ((255, 255, 255), 235), ((255, 0, 0), 81.481), ((10, 200, 30), 122.332)],
)
def test_luma_is_matlabs(rgb, expected):
    by_hand = 16 + np.dot(rgb, (65.481, 128.553, 24.966)) / 255
    image = torch.tensor(rgb, dtype=torch.float64).view(3, 1, 1) / 255
    assert rgb_to_y(image).item() * 255 == pytest.approx(by_hand, abs=1e-9)
    assert by_hand == pytest.approx(expected, abs=0.01)
