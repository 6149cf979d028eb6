# SPDX-License-Identifier: Apache-2.0
"""Colours of a decoded image, kept as they were in the image that was enlarged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pixelsmith.store.rows import Pixels, Rows

__all__ = ["REACH", "keep_colours"]

_LEVELS = 5
_STRIP = 128  # rows at a time
REACH = 2**_LEVELS - 1
"""Pixels around a pixel that decide its colour."""


def keep_colours(
    decoded: Iterable[tuple[int, Pixels]], image: Rows, *, start: int = 0, wraps: bool = False
) -> Iterator[tuple[int, Pixels]]:
    """Replace the coarse part of a decoded image by that of the image that was enlarged.

    Both are divided by five levels of the undecimated wavelet transform with the kernel (1, 2, 1) / 4: the
    detail stays, and what is coarser than a blur of 13 pixels comes from the other image. Works in strips,
    which are yielded when all rows that they depend on are there.

    Args:
        decoded: Number of the first row, and ``(n, W, 3)`` uint8, from the top down, beginning at row 0 or at
            least ``REACH`` rows above ``start``.
        image: Image that was enlarged, at the size of the decoded one.
        start: Number of rows at the top to skip.
        wraps: Whether left and right join.

    Yields:
        ``(top, rows)``: number of the first row, and ``(n, W, 3)`` uint8.

    Source: the undecimated ("a trous") transform of Starck and Murtagh; as a colour fix in StableSR, arXiv
        2305.07015, Sec. 3.4.
    """
    held: Pixels | None = None
    first = 0  # row at which the held rows begin
    for top, rows in decoded:
        first, held = (top, rows) if held is None else (first, np.concatenate([held, rows]))
        stop = first + len(held)
        stop = stop if stop == image.height else stop - REACH
        while start < stop:
            strip = slice(start, min(stop, start + _STRIP))
            yield start, _corrected(held, first, image, strip, wraps)
            start = strip.stop
        kept = max(first, start - REACH)
        first, held = kept, held[kept - first :]


def _corrected(held: Pixels, first: int, image: Rows, strip: slice, wraps: bool) -> Pixels:
    """Return some rows of the held ones, which begin at row ``first``, with the coarse part of the image."""
    top, bottom = max(first, strip.start - REACH), min(first + len(held), strip.stop + REACH)
    ours, theirs = _planes(held[top - first : bottom - first]), _planes(image.read(top, bottom))
    # the transform is linear: one of the difference is enough
    result = ours + _coarse(theirs - ours, wraps)
    kept = result[:, strip.start - top : strip.stop - top]
    return kept.clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _planes(pixels: Pixels) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)  # (3, h, w)


def _coarse(x: Tensor, wraps: bool) -> Tensor:
    """Return what is left of ``(C, h, w)`` below five levels of detail; borders are repeated, or join."""
    for level in range(_LEVELS):
        apart = 2**level
        x = _blur(F.pad(x, (0, 0, apart, apart), mode="replicate"), 1, apart)
        x = _blur(F.pad(x, (apart, apart), mode="circular" if wraps else "replicate"), 2, apart)
    return x


def _blur(x: Tensor, axis: int, apart: int) -> Tensor:
    """Return the weighted mean of each position and its two neighbours at a distance."""
    side = x.shape[axis] - 2 * apart
    before, middle, after = (x.narrow(axis, offset * apart, side) for offset in range(3))
    return (before + 2 * middle + after) / 4
