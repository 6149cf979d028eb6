# SPDX-License-Identifier: Apache-2.0
"""Bicubic resizing as MATLAB's imresize does it, which is what the tables of super-resolution rest on."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

_SUPPORT = 4.0  # width of the cubic kernel, in samples


def resize_bicubic(images: Tensor, scale: float) -> Tensor:
    """Resize with a = -0.5, antialiased when shrinking, and a symmetric border.

    Args:
        images: ``(..., H, W)``, floating.
        scale: Output over input side.

    Returns:
        ``(..., ceil(scale * H), ceil(scale * W))`` in the dtype of ``images``, computed in fp64; not clipped.

    Raises:
        ValueError: If ``scale`` is not positive.

    Source: the documentation of MATLAB's imresize; Keys, IEEE TASSP 1981, for the kernel.
    """
    if scale <= 0:
        raise ValueError(f"scale must be positive, got {scale}")
    y = images.double()
    for axis in (-2, -1):
        y = _resize_axis(y, axis, scale)
    return y.to(images.dtype)


def _resize_axis(x: Tensor, axis: int, scale: float) -> Tensor:
    size = x.shape[axis]
    weights, sources = _taps(size, math.ceil(round(size * scale, 9)), scale)
    shape = [-1 if number == x.ndim + axis else 1 for number in range(x.ndim)]
    y = 0.0
    for weight, source in zip(weights, sources, strict=True):  # one tap at a time: no copy of all taps
        y = y + x.index_select(axis, source.to(x.device)) * weight.to(x.device).view(shape)
    assert isinstance(y, Tensor), "every kernel has taps"
    return y


@lru_cache(maxsize=64)
def _taps(size: int, out_size: int, scale: float) -> tuple[Tensor, Tensor]:
    """Return weights and source positions of an axis, ``(taps, out_size)`` each."""
    stretch = max(1.0, 1 / scale)  # the kernel widens when shrinking
    centre = (torch.arange(out_size, dtype=torch.float64) + 0.5) / scale - 0.5
    first = torch.floor(centre - _SUPPORT * stretch / 2).long() + 1
    position = first + torch.arange(math.ceil(_SUPPORT * stretch) + 1)[:, None]  # (taps, out_size)
    weight = _cubic((centre - position) / stretch)
    mirrored = position.remainder(2 * size)
    source = torch.where(mirrored < size, mirrored, 2 * size - 1 - mirrored)
    return weight / weight.sum(dim=0), source


def _cubic(x: Tensor) -> Tensor:
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))


def crop_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Cut ``(..., H, W)`` at the right and at the bottom so that both sides are multiples.

    Raises:
        ValueError: If nothing is left.
    """
    height, width = (side // multiple * multiple for side in images.shape[-2:])
    if not height or not width:
        raise ValueError(f"an image of {tuple(images.shape[-2:])} is too small for a factor of {multiple}")
    return images[..., :height, :width]
