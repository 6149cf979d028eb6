# SPDX-License-Identifier: Apache-2.0
"""An image at half, a quarter, an eighth of its size, made in one pass from the top down."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixelsmith.store.rows import ArrayRows, Pixels, RawImage, Rows, bands

_BAND = 256


def halved(size: tuple[int, int], smallest: int = 1) -> list[tuple[int, int]]:
    """Return the sizes of a pyramid, the largest first, each half the one before, rounded up.

    Args:
        size: Height and width in pixels.
        smallest: Longest side of the last level, the first that is no larger.
    """
    sizes = [size]
    while max(sizes[-1]) > smallest:
        height, width = sizes[-1]
        sizes.append(((height + 1) // 2, (width + 1) // 2))
    return sizes


def build_pyramid(rows: Rows, folder: Path, smallest: int = 1) -> list[Rows]:
    """Write the smaller levels of an image as files and return all levels, the image itself first.

    Every pixel is the rounded mean of the four it covers; an odd last row or column counts twice.

    Args:
        rows: The image.
        folder: Folder of the raw files, one per smaller level.
        smallest: Longest side of the last level, see :func:`halved`.
    """
    sizes = halved((rows.height, rows.width), smallest)
    channels = rows.read(0, 1).shape[2]
    levels = [
        RawImage.create(folder / f"level-{number}.npy", *size, channels=channels)
        for number, size in enumerate(sizes[1:], 1)
    ]
    halves = [_Half(level) for level in levels]
    for _, band in bands(rows, _BAND):
        _feed(halves, band)
    _feed(halves, None)
    for level in levels:
        level.flush()
    return [rows, *levels]


class _Half:
    """One level of the pyramid: pairs rows and writes their means."""

    def __init__(self, level: RawImage) -> None:
        self.level = level
        self.top = 0
        self.odd: Pixels | None = None  # a row without its partner so far

    def push(self, band: Pixels) -> Pixels:
        rows = band if self.odd is None else np.concatenate([self.odd, band])
        even = len(rows) // 2 * 2
        self.odd = rows[even:].copy() if even < len(rows) else None
        return self._write(rows[:even])

    def finish(self) -> Pixels | None:
        if self.odd is None:
            return None
        rows, self.odd = np.concatenate([self.odd, self.odd]), None
        return self._write(rows)

    def _write(self, rows: Pixels) -> Pixels:
        small = halve(rows)
        self.level.write(self.top, small)
        self.top += len(small)
        return small


def _feed(halves: Sequence[_Half], band: Pixels | None) -> None:
    """Pass a band down the levels; ``None`` ends the image."""
    ends = band is None
    for half in halves:
        parts: list[Pixels] = []
        if band is not None and len(band):
            parts.append(half.push(band))
        if ends:
            last = half.finish()
            parts += [] if last is None else [last]
        band = np.concatenate(parts) if parts else None


def halve(rows: Pixels) -> Pixels:
    """Return the means of 2 x 2 pixels of ``(2n, W, C)``, ``(n, ceil(W / 2), C)`` uint8."""
    if rows.shape[1] % 2:
        rows = np.concatenate([rows, rows[:, -1:]], axis=1)
    wide: NDArray[np.uint16] = rows.astype(np.uint16)
    total = wide[0::2, 0::2] + wide[1::2, 0::2] + wide[0::2, 1::2] + wide[1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)


def shrink(rows: Rows, longest: int) -> Pixels:
    """Return the image halved until its longer side is at most ``longest``, in memory."""
    height, width = rows.height, rows.width
    times = 0
    while max(height, width) > longest:
        height, width, times = (height + 1) // 2, (width + 1) // 2, times + 1
    if times == 0:
        return rows.read(0, rows.height)
    step = 2**times
    parts: list[Pixels] = []
    for _, band in bands(rows, max(step, _BAND // step * step)):
        part = band
        for _ in range(times):
            part = halve(part if len(part) % 2 == 0 else np.concatenate([part, part[-1:]]))
        parts.append(part)
    return ArrayRows(np.concatenate(parts)).array
