# SPDX-License-Identifier: Apache-2.0
"""The fast torch path of :func:`fuse_phase`: unit phasors instead of angles, one batched transform."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from common_kernels.ops.fuse_phase.reference import smallest_resultant

_BLOCK_ELEMENTS = 1 << 16  # pixels at a time: the planes of a block stay in a core's cache


def fuse_phase_phasor(x: Tensor, guidance: Tensor, weight: float | Tensor, guarded: bool) -> Tensor:
    """Return ``(..., H, W)``, fp32 or fp64 as ``x``; gradients are finite on every bin."""
    # the compiler fuses the planes itself
    if x.device.type != "cpu" or isinstance(weight, Tensor) or torch.compiler.is_compiling():
        return _fuse(x, guidance, weight)
    fuse = _fuse if _is_tracked(x) or _is_tracked(guidance) else _fuse_in_place
    if x.ndim == 2 or x.numel() <= _BLOCK_ELEMENTS:
        return fuse(x, guidance, weight)
    per_block = max(1, _BLOCK_ELEMENTS // (x.shape[-2] * x.shape[-1]))
    blocks = zip(x.flatten(0, -3).split(per_block), guidance.flatten(0, -3).split(per_block), strict=True)
    return torch.cat([fuse(image, guide, weight) for image, guide in blocks]).view(x.shape)


def _is_tracked(x: Tensor) -> bool:
    """Return whether autograd or a transform of ``torch.func`` watches the operations on ``x``."""
    # a batched tensor hides that the one inside it requires grad
    return (x.requires_grad and torch.is_grad_enabled()) or torch.func.debug_unwrap(x, recurse=False) is not x


def _planes(x: Tensor, guidance: Tensor) -> tuple[Tensor, Tensor]:
    """Return real and imaginary parts of both half spectra, ``(2, ..., H, W // 2 + 1)`` each."""
    spectra = torch.fft.rfft2(torch.stack((x, guidance)), norm="ortho")
    # separate planes: torch runs interleaved complex arithmetic slowly
    return spectra.real.contiguous(), spectra.imag.contiguous()


def _fuse(x: Tensor, guidance: Tensor, weight: float | Tensor) -> Tensor:
    re, im = _planes(x, guidance)
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


def _fuse_in_place(x: Tensor, guidance: Tensor, weight: float) -> Tensor:
    """Return what :func:`_fuse` does, in fewer passes and buffers; has no backward.

    The mean is scaled by the amplitude of ``x``, which spares the unit phasors. Comparison and choice stay in
    floating point, 0 or 1 as the weight of a mean, since torch works on bool masks one element at a time.
    """
    re, im = _planes(x, guidance)
    tiny = torch.finfo(x.dtype).tiny
    power, guide_power = (im * im).addcmul_(re, re).unbind()
    # the power of a mean without direction; tiny covers the bins of x whose own power underflows
    smallest = (power * smallest_resultant(x.dtype) ** 2).add_(tiny)
    amplitude = power.sqrt_()
    # an infinite power takes a zero bin of the guide out of the mean
    scale = torch.threshold_(guide_power, tiny, math.inf).rsqrt_().mul_(amplitude)
    mean_re, mean_im = (plane[1].mul_(scale).lerp_(plane[0], 1 - weight) for plane in (re, im))
    mean_power = (mean_im * mean_im).addcmul_(mean_re, mean_re).clamp_(min=smallest)
    kept = smallest.ge_(mean_power)  # 0 or 1
    factor = mean_power.rsqrt_().mul_(amplitude)
    fused_re, fused_im = mean_re.mul_(factor).lerp_(re[0], kept), mean_im.mul_(factor).lerp_(im[0], kept)
    return torch.fft.irfft2(torch.complex(fused_re, fused_im), s=x.shape[-2:], norm="ortho")


def why_not_phasor(x: Tensor, guidance: Tensor, weight: float | Tensor, guarded: bool) -> str | None:
    """Return why this path cannot run the call, or ``None``."""
    return None if guarded else "reproduces the guarded mode only"
