# SPDX-License-Identifier: Apache-2.0
"""The fast torch path of :func:`fuse_phase`: unit phasors instead of angles, one batched transform."""

from __future__ import annotations

import torch
from torch import Tensor

from common_kernels.ops.fuse_phase.reference import smallest_resultant

_BLOCK_ELEMENTS = 1 << 16  # pixels at a time: the planes of a block stay in a core's cache


def fuse_phase_phasor(x: Tensor, guidance: Tensor, weight: float | Tensor, guarded: bool) -> Tensor:
    """Return ``(..., H, W)``, fp32 or fp64 as ``x``; gradients are finite on every bin."""
    if x.ndim == 2 or x.device.type != "cpu" or x.numel() <= _BLOCK_ELEMENTS or isinstance(weight, Tensor):
        return _fuse(x, guidance, weight)
    if torch.compiler.is_compiling():  # the compiler fuses the planes itself
        return _fuse(x, guidance, weight)
    per_block = max(1, _BLOCK_ELEMENTS // (x.shape[-2] * x.shape[-1]))
    blocks = zip(x.flatten(0, -3).split(per_block), guidance.flatten(0, -3).split(per_block), strict=True)
    return torch.cat([_fuse(image, guide, weight) for image, guide in blocks]).view(x.shape)


def _fuse(x: Tensor, guidance: Tensor, weight: float | Tensor) -> Tensor:
    spectra = torch.fft.rfft2(torch.stack((x, guidance)), norm="ortho")  # (2, ..., H, W // 2 + 1)
    # separate planes of real and imaginary parts: torch runs interleaved complex arithmetic slowly
    re, im = spectra.real.contiguous(), spectra.imag.contiguous()
    tiny = torch.finfo(x.dtype).tiny
    power = torch.addcmul(im * im, re, re)
    inverse = power.clamp(min=tiny).rsqrt()
    phasor_re, phasor_im = re * inverse, im * inverse
    mean_re = torch.lerp(phasor_re[0], phasor_re[1], weight)
    mean_im = torch.lerp(phasor_im[0], phasor_im[1], weight)
    mean_power = torch.addcmul(mean_im * mean_im, mean_re, mean_re)
    # the amplitude is power * inverse, so no square root is taken
    factor = power[0] * inverse[0] * mean_power.clamp(min=tiny).rsqrt()
    kept = (power < tiny).any(dim=0) | (mean_power <= smallest_resultant(x.dtype) ** 2)
    fused_re, fused_im = (
        torch.where(kept, re[0], mean_re * factor),
        torch.where(kept, im[0], mean_im * factor),
    )
    return torch.fft.irfft2(torch.complex(fused_re, fused_im), s=x.shape[-2:], norm="ortho")


def why_not_phasor(x: Tensor, guidance: Tensor, weight: float | Tensor, guarded: bool) -> str | None:
    """Return why this path cannot run the call, or ``None``."""
    return None if guarded else "reproduces the guarded mode only"
