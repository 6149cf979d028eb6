# SPDX-License-Identifier: Apache-2.0
"""The shipped denoiser on a photograph: lower precision and tiles change next to nothing."""

import numpy as np
import pytest
import torch
from semanir import RestoreOptions, Restorer
from semanir.metrics import psnr
from skimage.data import chelsea


@pytest.fixture(scope="module")
def photograph():
    """Return a part of a photograph and the same with noise, ``(3, 96, 160)``."""
    clean = torch.from_numpy(chelsea()[90:186, 100:260].copy()).permute(2, 0, 1) / 255
    noise = np.random.default_rng(0).normal(0, 25 / 255, clean.shape)
    return clean, (clean + torch.from_numpy(noise).float())


@pytest.fixture(scope="module")
def restorer():
    return Restorer.from_pretrained("tiny-denoise", device="cpu")


@pytest.fixture(scope="module")
def whole(photograph, restorer):
    with torch.inference_mode():
        return restorer.model(photograph[1][None])[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_changes_next_to_nothing(photograph, restorer, whole, dtype, record_property):
    clean, noisy = photograph
    largest = []
    hooks = [
        stage.register_forward_hook(lambda *call: largest.append(call[-1].abs().max().item()))
        for stage in restorer.model.stages
    ]
    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype):
        restored = restorer.model(noisy[None])[0].float()
    for hook in hooks:
        hook.remove()
    record_property("largest value between the stages", max(largest))
    assert max(largest) < torch.finfo(torch.float16).max
    assert abs(psnr(restored, clean) - psnr(whole, clean)) < 0.05


def test_tiles_leave_no_grid(photograph, restorer, whole):
    clean, noisy = photograph
    image = noisy.permute(1, 2, 0).contiguous().numpy()
    tiled = torch.from_numpy(restorer.restore(image, RestoreOptions(tile=96, overlap=32))).permute(2, 0, 1)
    assert not torch.equal(tiled, whole)
    assert abs(psnr(tiled, clean) - psnr(whole, clean)) < 0.05
    assert seam_score(tiled) < 1.05 * seam_score(whole)


def seam_score(image, grid=32):
    """Return steps across the grid on which tiles start over those elsewhere."""
    steps = image.diff(dim=-1).abs().mean(dim=(0, 1))
    at_grid = torch.arange(len(steps)) % grid == grid - 1
    return (steps[at_grid].mean() / steps[~at_grid].mean()).item()
