# SPDX-License-Identifier: Apache-2.0
"""The bins between the transforms of :func:`fuse_phase` in one compiled pass; forward only."""

from __future__ import annotations

import torch
from torch import Tensor

from common_kernels._native import not_auto_exporting, why_no_native
from common_kernels.ops.fuse_phase.reference import smallest_resultant

_OP = "common_kernels::mix_phase_native"
_UNAVAILABLE = why_no_native()  # read once: a graph cannot ask
_SMALLEST_POWER = torch.finfo(torch.float32).tiny
_SMALLEST_MEAN = smallest_resultant(torch.float32) ** 2
_BLOCK_ELEMENTS = 1 << 17  # pixels at a time: their spectra stay in a core's cache

torch.library.define(
    _OP,
    "(Tensor spectrum, Tensor guide, float weight, float smallest_power, float smallest_mean) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


@torch.library.register_fake(_OP)  # pyright: ignore[reportUntypedFunctionDecorator]
def _fake_mix_phase(
    spectrum: Tensor, guide: Tensor, weight: float, smallest_power: float, smallest_mean: float
) -> Tensor:
    return spectrum.new_empty(spectrum.shape)


def why_not_native(x: Tensor, guidance: Tensor, weight: float | Tensor, guarded: bool) -> str | None:
    """Return why the kernel cannot run this call, or ``None``."""
    if not guarded:
        return "reproduces the guarded mode only"
    if isinstance(weight, Tensor):
        return "needs a number as weight, got a tensor"
    if x.device.type != "cpu":
        return f"needs tensors on the CPU, got {x.device.type}"
    if x.dtype != torch.float32:
        return f"needs float32 or less, got {x.dtype}"
    if torch.is_grad_enabled() and (x.requires_grad or guidance.requires_grad):
        return "has no backward, but an input requires grad"
    return _UNAVAILABLE


def not_auto_native(x: Tensor, guidance: Tensor, weight: float | Tensor, guarded: bool) -> str | None:
    """Return why ``"auto"`` should prefer another backend although this one runs, or ``None``."""
    return not_auto_exporting()


def fuse_phase_native(x: Tensor, guidance: Tensor, weight: float | Tensor, guarded: bool) -> Tensor:
    """Return ``(..., H, W)`` fp32."""
    H, W = x.shape[-2:]
    images, guides = x.reshape(-1, H, W), guidance.reshape(-1, H, W)
    per_block = max(1, _BLOCK_ELEMENTS // (H * W))
    if len(images) <= per_block:
        return _fuse(images, guides, float(weight)).view(x.shape)
    blocks = zip(images.split(per_block), guides.split(per_block), strict=True)
    return torch.cat([_fuse(image, guide, float(weight)) for image, guide in blocks]).view(x.shape)


def _fuse(images: Tensor, guides: Tensor, weight: float) -> Tensor:
    # stacking the images for one transform costs more than the second call
    spectrum = torch.fft.rfft2(images, norm="ortho").contiguous()
    guide = torch.fft.rfft2(guides, norm="ortho").contiguous()
    fused = torch.ops.common_kernels.mix_phase_native(
        spectrum, guide, weight, _SMALLEST_POWER, _SMALLEST_MEAN
    )
    return torch.fft.irfft2(fused, s=images.shape[-2:], norm="ortho")
