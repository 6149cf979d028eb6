# SPDX-License-Identifier: Apache-2.0
"""Degradations of image files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from common_kernels.runtime.images import ImageFile
from numpy.typing import NDArray

from semanir.degradations.kinds import Degradation
from semanir.degradations.scaling import crop_to_multiple, resize_bicubic

__all__ = ["degrade_image", "generator_of"]


def generator_of(seed: int, content: str) -> torch.Generator:
    """Return a generator on the CPU for one file.

    Args:
        seed: Random seed of the run.
        content: Digest of the file, so that a file gives one result whatever others are beside it.
    """
    return torch.Generator().manual_seed((seed * 0x9E3779B1 + int(content[:15], 16)) % 2**63)


def degrade_image(
    image: ImageFile, degradation: Degradation, generator: torch.Generator, *, unclipped: bool = False
) -> ImageFile:
    """Spoil the colours of an image; transparency, profile, EXIF and resolution stay.

    Args:
        image: Image; floats are nominally in [0, 1].
        degradation: What is done to it.
        generator: Source of everything random.
        unclipped: Whether the result is float32 and keeps what lies outside of [0, 1].

    Returns:
        The image in the dtype of its input, or float32; smaller if the degradation shrinks.

    Raises:
        ValueError: If a number is not finite, or the degradation cannot take such an image.
    """
    pixels = image.pixels
    full_scale = 1.0 if pixels.dtype == np.float32 else float(2 ** (8 * pixels.dtype.itemsize) - 1)
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        raise ValueError("the image holds NaN or infinite values")
    x = torch.from_numpy(pixels.reshape(image.height, image.width, -1).astype(np.float32) / full_scale)
    x = x.permute(2, 0, 1)[None]
    has_alpha = x.shape[1] in (2, 4)
    colour = x[:, :-1] if has_alpha else x
    y = degradation(colour, generator)
    if has_alpha:
        alpha, factor = x[:, -1:], x.shape[-2] // y.shape[-2]
        if factor > 1:
            alpha = resize_bicubic(crop_to_multiple(alpha, factor), 1 / factor).clamp(0, 1)
        y = torch.cat([y, alpha], dim=1)
    out: NDArray[Any] = y[0].permute(1, 2, 0).numpy()
    out = out[..., 0] if pixels.ndim == 2 else out
    if not unclipped and pixels.dtype != np.float32:
        out = (out * full_scale).round().clip(0, full_scale).astype(pixels.dtype)
    return replace(image, pixels=np.ascontiguousarray(out))
