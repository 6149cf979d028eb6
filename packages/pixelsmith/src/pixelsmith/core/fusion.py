# SPDX-License-Identifier: Apache-2.0
"""Phase fusion of patches with their guidance."""

from __future__ import annotations

import torch
from common_kernels import fuse_phase
from torch import Tensor

from pixelsmith.config import JobConfig

__all__ = ["fuse_patches"]


def fuse_patches(x: Tensor, guidance: Tensor, config: JobConfig) -> Tensor:
    """Turn the phases of patches halfway toward those of the guidance; the amplitudes stay.

    Args:
        x: Patches, ``(B, C, P, Q)``.
        guidance: Guiding patches; shape, dtype and device of ``x``.
        config: Kind and weight of the fusion.

    Returns:
        Shape and dtype of ``x``; computed in fp32.

    Source: Pixelsmith, arXiv 2406.07251, Sec. 3 (averaging guidance).
    """
    if config.fusion == "off":
        return x
    is_official = config.fusion == "official" or (config.fusion == "auto" and config.mode == "official")
    mode = "reference" if is_official else "guarded"
    # patch by patch, so that rounding cannot depend on the batch size
    fused = [
        fuse_phase(patch, guide, weight=config.fusion_weight, mode=mode)
        for patch, guide in zip(x, guidance, strict=True)
    ]
    return torch.stack(fused)
