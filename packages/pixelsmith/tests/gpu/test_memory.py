# SPDX-License-Identifier: Apache-2.0
"""The memory of a real GPU against what is told before."""

import pytest
import torch
from pixelsmith.adapters import load_model
from pixelsmith.adapters.memory import measure_memory
from pixelsmith.io.tiles import Tiling
from pixelsmith.io.vae import TiledVAE
from pixelsmith.store import Canvas

pytestmark = pytest.mark.gpu  # the CPU has no counter of memory


def peak(call):
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.no_grad():
        call()
    return torch.cuda.max_memory_allocated() - before


def test_gathering_statistics_takes_no_more_than_a_tile():
    model = load_model("tiny-sdxl", "a red circle", device="cuda", dtype="float32")
    tiling = Tiling(tile=96, halo=16)
    plain = peak(lambda: model.vae.decode(torch.zeros(1, model.channels, 128, 128, device="cuda")))
    canvas = Canvas(torch.randn(model.channels, 512, 512))
    assert peak(lambda: list(TiledVAE(model.vae, tiling).decode(canvas))) < 1.15 * plain


def test_what_is_told_is_what_a_call_takes():
    model = load_model("tiny-sdxl", "a red circle", device="cuda", dtype="float32")
    told = measure_memory(model, (256, 256), (16, 16), 64, Tiling(tile=16, halo=4))
    denoiser = model.denoiser((256, 256), (16, 16))
    x = torch.zeros(64, model.channels, 16, 16, device="cuda")
    found = peak(lambda: denoiser.predict(x, 0, [(0, 0)] * 64))
    assert 0.7 * told.denoising < found < 1.5 * told.denoising  # blocks of the allocator, workspaces
