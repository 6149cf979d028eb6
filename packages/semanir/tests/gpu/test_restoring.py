# SPDX-License-Identifier: Apache-2.0
"""Restoring on each device, in each precision, against double precision on the CPU."""

import numpy as np
import pytest
import torch
from semanir import RestoreOptions, SemanIR
from semanir.demo import PHOTOGRAPHS
from semanir.restorer import Restorer


@pytest.fixture(scope="module")
def noisy():
    clean = PHOTOGRAPHS["chelsea"]()[60:124, 180:260] / 255
    return (clean + np.random.default_rng(0).normal(0, 25 / 255, clean.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def yardstick(noisy):
    return Restorer(SemanIR.from_pretrained("tiny-denoise", device="cpu").double()).restore(noisy)


# half precision may move a pixel by a few levels of 255, which is far below the noise that is removed
@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 1e-4), ("float16", 0.02), ("bfloat16", 0.1)])
def test_each_precision_restores_the_same_image(noisy, yardstick, device, dtype, allowed):
    restored = Restorer.from_pretrained("tiny-denoise", device=device, dtype=dtype).restore(noisy)
    assert restored.dtype == np.float32
    error = np.abs(restored - yardstick)
    assert error.max() < allowed
    assert error.mean() < allowed / 10
    assert np.abs(yardstick - noisy).mean() > 0.05


@pytest.mark.gpu  # on the CPU tests/unit/test_export.py compiles a smaller one, as this takes half a minute
def test_the_compiled_network_is_the_network(noisy):
    torch.compiler.reset()
    model = SemanIR.from_pretrained("tiny-denoise", device="cuda")
    image = torch.from_numpy(noisy[:32, :32]).permute(2, 0, 1)[None].cuda()
    with torch.no_grad():
        wanted = model(image)
        found = torch.compile(model, fullgraph=True)(image)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


@pytest.mark.gpu
def test_memory_is_that_of_a_tile_and_not_of_the_image():
    restorer = Restorer.from_pretrained("tiny-denoise", device="cuda")
    peaks = []
    for side in (256, 256, 768):  # the first call compiles
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        restorer.restore(np.zeros((side, side, 3), np.float32), RestoreOptions(tile=128))
        torch.cuda.synchronize()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[2] < 1.1 * peaks[1]
