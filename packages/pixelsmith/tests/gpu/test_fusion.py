# SPDX-License-Identifier: Apache-2.0
"""The fused phase: the Triton kernel on a GPU and in the interpreter, and what the CPU takes."""

import os

import pytest
import torch
from common_kernels import fuse_phase
from pixelsmith import JobConfig
from pixelsmith.core.engine import run_stage
from pixelsmith.core.fusion import fuse_patches

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# half formats are read, computed in fp32 and rounded once
WITHIN = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 4e-3}
PLACES = [
    "cpu",
    pytest.param("interpreter", marks=[
        pytest.mark.interpret, pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1"),
        pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # the interpreter computes in numpy
    ]),
    pytest.param("cuda", marks=pytest.mark.gpu),
]  # fmt: skip


@pytest.fixture(params=PLACES)
def fuse(request):
    """The fused phase with the backend of a place: Triton, but for the CPU without the interpreter."""
    device = "cuda" if request.param == "cuda" else "cpu"
    backend = "auto" if request.param == "cpu" else "triton"
    return lambda x, guide: fuse_phase(x.to(device), guide.to(device), backend=backend).cpu()


def pair(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(2)]


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("shape", [(2, 4, 128, 128), (1, 16, 64, 96), (1, 4, 17, 21)])
def test_the_fused_phase_agrees_with_the_reference(fuse, shape, dtype):
    x, guide = pair(shape, dtype)
    # in float32 as well, which sets the guard: a bin within one and beyond the other moves a whole image
    expected = fuse_phase(x.float(), guide.float(), backend="reference")
    found = fuse(x, guide)
    assert found.dtype == dtype
    assert (found.float() - expected).abs().max() <= WITHIN[dtype] * expected.abs().max()


def test_patches_are_fused_alike_on_both_devices_and_in_any_batch(device):
    x, guide = pair((5, 4, 128, 128), torch.float32)
    config = JobConfig(patch=128)
    found = fuse_patches(x.to(device), guide.to(device), config)
    assert (found.cpu() - fuse_phase(x, guide, backend="reference")).abs().max() <= 1e-4
    assert torch.equal(fuse_patches(x[2:3].to(device), guide[2:3].to(device), config), found[2:3])


def test_a_stage_gives_the_same_latents_on_every_device(toys, device):
    clean, config = toys.latents(4, 40, 52), toys.job(overhang=2, slider=3, batch_size=3)

    class There(toys.Mixing):
        pass

    There.device = torch.device(device)
    found = run_stage(There(4), clean, config).data.cpu()
    # one patch at a time on the CPU
    expected = run_stage(toys.Mixing(4), clean, toys.job(overhang=2, slider=3)).data
    assert (found - expected).abs().max() <= 1e-3
