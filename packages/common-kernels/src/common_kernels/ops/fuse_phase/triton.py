# SPDX-License-Identifier: Apache-2.0
"""The bins between the transforms of :func:`fuse_phase` in one Triton kernel."""

from __future__ import annotations

# pyright: basic, reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false
import torch
import triton
import triton.language as tl
from torch import Tensor

from common_kernels.ops.fuse_phase.reference import smallest_resultant

_OP = "common_kernels::mix_phase"
_BLOCK = 1024

torch.library.define(
    _OP,
    "(Tensor spectrum, Tensor guide, float weight) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def fuse_phase_triton(x: Tensor, guidance: Tensor, weight: float | Tensor, guarded: bool) -> Tensor:
    """Return ``(..., H, W)`` fp32; forward only."""
    spectrum, guide = torch.fft.rfft2(torch.stack((x, guidance)), norm="ortho")
    fused = torch.ops.common_kernels.mix_phase(spectrum, guide, float(weight))
    return torch.fft.irfft2(fused, s=x.shape[-2:], norm="ortho")


@triton.jit
def _mix_phase_kernel(x_ptr, g_ptr, out_ptr, num_bins, weight, limit, tiny, BLOCK: tl.constexpr):
    """Y = |X| s / |s| with s = (1 - w) X / |X| + w G / |G|; X where s has no direction."""
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < num_bins
    x_re = tl.load(x_ptr + 2 * offs, mask=mask, other=0.0)
    x_im = tl.load(x_ptr + 2 * offs + 1, mask=mask, other=0.0)
    g_re = tl.load(g_ptr + 2 * offs, mask=mask, other=0.0)
    g_im = tl.load(g_ptr + 2 * offs + 1, mask=mask, other=0.0)
    power = x_re * x_re + x_im * x_im
    guide_power = g_re * g_re + g_im * g_im
    inverse = tl.rsqrt(tl.maximum(power, tiny))
    guide_inverse = tl.rsqrt(tl.maximum(guide_power, tiny))
    s_re = (1 - weight) * x_re * inverse + weight * g_re * guide_inverse
    s_im = (1 - weight) * x_im * inverse + weight * g_im * guide_inverse
    mean_power = s_re * s_re + s_im * s_im
    factor = power * inverse * tl.rsqrt(tl.maximum(mean_power, tiny))
    kept = (power < tiny) | (guide_power < tiny) | (mean_power <= limit)
    tl.store(out_ptr + 2 * offs, tl.where(kept, x_re, s_re * factor), mask=mask)
    tl.store(out_ptr + 2 * offs + 1, tl.where(kept, x_im, s_im * factor), mask=mask)


@torch.library.impl(_OP, "default")
def _mix_phase(spectrum: Tensor, guide: Tensor, weight: float) -> Tensor:
    spectrum, guide = spectrum.contiguous(), guide.contiguous()
    out = torch.empty_like(spectrum)
    count = spectrum.numel()
    if count:
        limit, tiny = smallest_resultant(torch.float32) ** 2, torch.finfo(torch.float32).tiny
        views = (torch.view_as_real(z) for z in (spectrum, guide, out))
        _mix_phase_kernel[(triton.cdiv(count, _BLOCK),)](*views, count, weight, limit, tiny, BLOCK=_BLOCK)
    return out


@torch.library.register_fake(_OP)  # pyright: ignore[reportUntypedFunctionDecorator]
def _fake_mix_phase(spectrum: Tensor, guide: Tensor, weight: float) -> Tensor:
    return torch.empty_like(spectrum, memory_format=torch.contiguous_format)
