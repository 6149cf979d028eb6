# SPDX-License-Identifier: Apache-2.0
"""The fused phase on a GPU: the operator, the fusion of patches and a whole stage against the CPU."""

import pytest
import torch
from common_kernels import fuse_phase
from pixelsmith import JobConfig
from pixelsmith.core.engine import run_stage
from pixelsmith.core.fusion import fuse_patches

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# half formats are read, computed in fp32 and rounded once
WITHIN = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 4e-3}


def pair(shape, dtype):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(2)]


@pytest.mark.parametrize("dtype", WITHIN)
@pytest.mark.parametrize("shape", [(2, 4, 128, 128), (1, 16, 64, 96), (1, 4, 17, 21)])
def test_the_triton_phase_agrees_with_float64(shape, dtype):
    x, guide = pair(shape, dtype)
    expected = fuse_phase(x.double(), guide.double(), backend="reference")
    found = fuse_phase(x.cuda(), guide.cuda(), backend="triton")
    assert found.dtype == dtype
    # bins whose phases are nearly opposite turn by rounding, and are few
    error = (found.cpu().double() - expected).abs()
    assert error.quantile(0.999) <= WITHIN[dtype] * expected.abs().max()


def test_patches_are_fused_alike_on_both_devices_and_in_any_batch():
    x, guide = pair((5, 4, 128, 128), torch.float32)
    config = JobConfig(patch=128)
    found = fuse_patches(x.cuda(), guide.cuda(), config)
    assert (found.cpu() - fuse_patches(x, guide, config)).abs().max() <= 1e-4
    assert torch.equal(fuse_patches(x[2:3].cuda(), guide[2:3].cuda(), config), found[2:3])


def test_a_stage_on_the_gpu_gives_the_latents_of_the_cpu(toys):
    clean, config = toys.latents(4, 40, 52), toys.job(overhang=2, slider=3)

    class OnGpu(toys.Mixing):
        device = torch.device("cuda")

    found = run_stage(OnGpu(4), clean, config).data.cpu()
    assert (found - run_stage(toys.Mixing(4), clean, config).data).abs().max() <= 1e-3
