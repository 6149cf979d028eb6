# SPDX-License-Identifier: Apache-2.0
"""A measure of how far the borders of tiles show in an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pixelsmith.store.rows import Rows, bands

_BAND = 512


def seam_score(rows: Rows, period: int) -> float:
    """Compare the steps across a grid of lines with the steps elsewhere.

    A step counts as far as it differs from the steps on both sides of it, so slopes and soft edges
    count little, and a seam, which is one pixel wide, counts in full.

    Args:
        rows: The image.
        period: Pixels between the lines, in both directions; at least 4.

    Returns:
        Mean across the lines over mean elsewhere: 1 if no seam shows, and for flat images.

    Raises:
        ValueError: If the image has no such line, or the period is too short.

    Example:
        >>> from pixelsmith.store.rows import ArrayRows
        >>> image = np.zeros((8, 16, 3), dtype=np.uint8)
        >>> seam_score(ArrayRows(image), 8)
        1.0
    """
    if period < 4 or period >= max(rows.height, rows.width) - 1:
        raise ValueError(f"period must be at least 4 and leave a line in the image, got {period}")
    on, off = _Mean(), _Mean()
    for top, band in bands(rows, _BAND):
        grey: NDArray[np.float32] = band.astype(np.float32).mean(axis=2)
        _count(grey, 0, period, on, off)
        # rows of the next band complete the steps at the end of this one
        below = rows.read(top, min(rows.height, top + _BAND + 3)).astype(np.float32).mean(axis=2)
        _count(below.T, top, period, on, off)
    if off.value() == 0:
        return 1.0 if on.value() == 0 else float("inf")
    return on.value() / off.value()


class _Mean:
    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, values: NDArray[np.float32]) -> None:
        self.total += float(values.sum(dtype=np.float64))
        self.count += values.size

    def value(self) -> float:
        return self.total / max(self.count, 1)


def _count(grey: NDArray[np.float32], first: int, period: int, on: _Mean, off: _Mean) -> None:
    """Take the steps along the second axis, of which ``first`` is the number of the first pixel."""
    if grey.shape[1] < 4:
        return
    steps = np.diff(grey, axis=1)
    odd = np.abs(steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2)
    behind = first + np.arange(2, 2 + odd.shape[1])  # the pixel behind each step
    is_line = behind % period == 0
    on.add(odd[:, is_line])
    off.add(odd[:, ~is_line])
