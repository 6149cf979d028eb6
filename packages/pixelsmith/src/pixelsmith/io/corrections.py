# SPDX-License-Identifier: Apache-2.0
"""Corrections of a decoded image by the one that was enlarged: its colours, and grain where that is calm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pixelsmith.store.rows import Pixels, Rows

__all__ = ["REACH", "correct_rows"]

_LEVELS = 5  # of the transform: coarser than a blur of 13 pixels
_AROUND = 3  # levels of the blur, 8 pixels wide, over which detail is measured
_STRIP, _WIDTH = 128, 4096  # rows and columns at a time, so that memory does not grow with the image
REACH = (2**_LEVELS - 1) + (2**_AROUND - 1)
"""Pixels around a pixel that decide its value."""


def correct_rows(
    decoded: Iterable[tuple[int, Pixels]],
    image: Rows,
    *,
    colours: bool = False,
    grain: float = 0.0,
    start: int = 0,
    wraps: bool = False,
) -> Iterator[tuple[int, Pixels]]:
    """Take the coarse part, or detail that is too weak, of a decoded image from the one that was enlarged.

    The difference of both is divided by five levels of the undecimated wavelet transform with the kernel
    (1, 2, 1) / 4. Its coarse part, a blur of 13 pixels, are colours; the rest is detail, of which the root
    mean square is measured around each pixel. Detail weaker than ``grain`` goes; of detail of strength ``e``
    the share ``1 - (grain / e) ** 4`` stays, so that what is twice as strong keeps 94 %. Works in strips,
    which are yielded when all rows that they depend on are there.

    Args:
        decoded: Number of the first row, and ``(n, W, 3)`` uint8, from the top down, beginning at row 0 or at
            least ``REACH`` rows above ``start``.
        image: Image that was enlarged, at the size of the decoded one.
        colours: Whether the coarse part comes from the image.
        grain: Levels of 255 below which detail is grain; 0 for none.
        start: Number of rows at the top to skip.
        wraps: Whether left and right join.

    Yields:
        ``(top, rows)``: number of the first row, and ``(n, W, 3)`` uint8.

    Source: the undecimated ("a trous") transform of Starck and Murtagh; as a colour fix in StableSR, arXiv
        2305.07015, Sec. 3.4. The shrinkage is that of a Wiener filter, squared to be steeper.
    """
    held: Pixels | None = None
    first = 0  # row at which the held rows begin
    for top, rows in decoded:
        first, held = (top, rows) if held is None else (first, np.concatenate([held, rows]))
        stop = first + len(held)
        stop = stop if stop == image.height else stop - REACH
        while start < stop:
            strip = slice(start, min(stop, start + _STRIP))
            above, below = max(first, strip.start - REACH), min(first + len(held), strip.stop + REACH)
            pair = held[above - first : below - first], image.read(above, below)
            inner = slice(strip.start - above, strip.stop - above)
            yield start, _corrected(*pair, inner, colours, grain, wraps)
            start = strip.stop
        kept = max(first, start - REACH)
        first, held = kept, held[kept - first :]


def _corrected(
    ours: Pixels, theirs: Pixels, inner: slice, colours: bool, grain: float, wraps: bool
) -> Pixels:
    """Return the inner rows of a strip, corrected in blocks of columns."""
    width = ours.shape[1]
    parts: list[Pixels] = []
    for left in range(0, width, _WIDTH):
        right = min(width, left + _WIDTH)
        at = np.arange(left - REACH, right + REACH)
        at = at % width if wraps else at[(at >= 0) & (at < width)]
        skip = REACH if wraps else left - int(at[0])
        found = _block(_planes(ours, at), _planes(theirs, at), colours, grain)
        found = found[:, inner, skip : skip + right - left]
        parts.append(found.clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def _planes(pixels: Pixels, columns: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(pixels[:, columns].astype(np.float32)).permute(2, 0, 1)  # (3, h, w)


def _block(ours: Tensor, theirs: Tensor, colours: bool, grain: float) -> Tensor:
    """Return ``(3, h, w)`` corrected; right wherever ``REACH`` pixels around are there, or the image ends."""
    difference = ours - theirs
    coarse = _blurred(difference, _LEVELS)
    result = ours - coarse if colours else ours
    if grain:
        detail = difference - coarse
        energy = _blurred(detail.square().mean(dim=0, keepdim=True), _AROUND)
        share = (grain**4 / energy.square().clamp_min(1e-9)).clamp_max(1)
        result = result - share * detail
    return result


def _blurred(x: Tensor, levels: int) -> Tensor:
    """Return what is left of ``(C, h, w)`` below some levels of detail; borders are repeated."""
    for level in range(levels):
        apart = 2**level
        x = _blur(F.pad(x, (0, 0, apart, apart), mode="replicate"), 1, apart)
        x = _blur(F.pad(x, (apart, apart), mode="replicate"), 2, apart)
    return x


def _blur(x: Tensor, axis: int, apart: int) -> Tensor:
    """Return the weighted mean of each position and its two neighbours at a distance."""
    side = x.shape[axis] - 2 * apart
    before, middle, after = (x.narrow(axis, offset * apart, side) for offset in range(3))
    return (before + 2 * middle + after) / 4
