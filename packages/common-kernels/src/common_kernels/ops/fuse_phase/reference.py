# SPDX-License-Identifier: Apache-2.0
"""The specification of :func:`fuse_phase`, by angles."""

from __future__ import annotations

import torch
from torch import Tensor


def smallest_resultant(dtype: torch.dtype) -> float:
    """Return the length of a mean phasor below which its direction is rounding, for a real ``dtype``."""
    return torch.finfo(dtype).eps ** 0.5


def fuse_phase_reference(x: Tensor, guidance: Tensor, weight: float | Tensor, guarded: bool) -> Tensor:
    """Return ``(..., H, W)``, fp32 or fp64 as ``x``."""
    spectrum, guide = torch.fft.rfft2(x, norm="ortho"), torch.fft.rfft2(guidance, norm="ortho")
    one = torch.ones((), dtype=x.dtype, device=x.device)
    phasor, guide_phasor = torch.polar(one, spectrum.angle()), torch.polar(one, guide.angle())
    mean = (1 - weight) * phasor + weight * guide_phasor
    fused = torch.polar(spectrum.abs(), mean.angle())
    if guarded:
        kept = (spectrum.abs() == 0) | (guide.abs() == 0) | (mean.abs() <= smallest_resultant(x.dtype))
        fused = torch.where(kept, spectrum, fused)
    return torch.fft.irfft2(fused, s=x.shape[-2:], norm="ortho")
