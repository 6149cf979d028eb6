# SPDX-License-Identifier: Apache-2.0
"""Lanczos in strips: within 1/255 of Pillow's result for the whole image, with one strip in memory."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from pixelsmith.store.rows import ArrayRows, Pixels, Rows, read_wrapped

_LOBES = 3  # half width of the kernel, in pixels of the coarser image
_WHOLE = 100_000_000  # pixels up to which a shrunk image is resized in one piece


class Resized:
    """An image at another size, resized as its rows are read.

    Pillow rounds to bytes between its two passes and, where a side shrinks, chooses their order by its own
    rules. So enlarging is done in strips of two explicit passes, and shrinking by Pillow in one piece as
    long as that is cheap; beyond 100 million pixels strips, horizontal first, may differ from it by more.

    Args:
        rows: The image.
        size: New height and width in pixels; the aspect may change.
        wrap: Whether top and bottom, and left and right, join.

    Raises:
        ValueError: If a side is below 1.
    """

    def __init__(
        self, rows: Rows, size: tuple[int, int], *, wrap: tuple[bool, bool] = (False, False)
    ) -> None:
        if min(size) < 1:
            raise ValueError(f"size must be at least 1 x 1, got {size[0]} x {size[1]}")
        self.height, self.width = size
        self.wrap = wrap
        self.rows = rows
        shrinks = self.height < rows.height or self.width < rows.width
        if shrinks and not any(wrap) and rows.height * rows.width <= _WHOLE:
            whole = Image.fromarray(np.ascontiguousarray(rows.read(0, rows.height)))
            small = np.asarray(whole.resize((self.width, self.height), Image.Resampling.LANCZOS))
            self.rows = ArrayRows(small)

    def read(self, top: int, bottom: int) -> Pixels:
        """Return rows ``[top, bottom)`` of the result, ``(bottom - top, width, 3)`` uint8."""
        rows = self.rows
        if (self.height, self.width) == (rows.height, rows.width):
            return rows.read(top, bottom)
        scale = rows.height / self.height
        reach = math.ceil(_LOBES * max(scale, 1)) + 1
        first, last = math.floor(top * scale) - reach, math.ceil(bottom * scale) + reach
        if not self.wrap[0]:
            first, last = max(first, 0), min(last, rows.height)
        wide = self._widen(read_wrapped(rows, first, last))
        # Pillow reads beyond the box as far as the strip goes, so the strip's own edges matter only where
        # they are those of the image
        box = (0, top * scale - first, self.width, bottom * scale - first)
        return np.asarray(wide.resize((self.width, bottom - top), Image.Resampling.LANCZOS, box=box))

    def _widen(self, source: Pixels) -> Image.Image:
        """Return the rows at the new width."""
        margin = 0
        if self.wrap[1]:
            width = source.shape[1]
            margin = math.ceil(_LOBES * max(width / self.width, 1)) + 1
            source = source[:, np.arange(-margin, width + margin) % width]
        strip = Image.fromarray(np.ascontiguousarray(source))
        box = (margin, 0, source.shape[1] - margin, len(source))
        return strip.resize((self.width, len(source)), Image.Resampling.LANCZOS, box=box)
