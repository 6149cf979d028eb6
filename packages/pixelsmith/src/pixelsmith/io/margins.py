# SPDX-License-Identifier: Apache-2.0
"""A margin around an image for the autoencoder, so that its borders lie beyond those of the image.

At the border a convolution sees zeros. The encoder makes latents there that are unlike all others, and the
decoder was trained to find them at its own border: patches that move over a canvas neither expect nor
restore them, and a stripe is left. So the image is mirrored a few latents beyond its borders and encoded with
this margin; only what lies inside is denoised; and for decoding the margin is laid around it again.

Where sides join, the margin is wider and holds what lies at the opposite side. Its outer part still is a
border: networks are trained with one, and normalise an image without a border to glaring colours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pixelsmith.io.tiles import MARGIN
from pixelsmith.store.canvas import Canvas
from pixelsmith.store.rows import Pixels, Rows, read_wrapped

__all__ = ["Extended", "Framed", "Margin"]

_JOINED = 16  # latents of the opposite side, besides the border


class Margin:
    """The margin of a canvas.

    Args:
        width: Latents beyond each border that joins no other.
        factor: Pixels per latent and side.
        wraps: Whether rows and columns join.
    """

    def __init__(self, width: int, factor: int, wraps: tuple[bool, bool]) -> None:
        self.rows, self.columns = (MARGIN + _JOINED if joins else width for joins in wraps)
        self.border = tuple(MARGIN if joins else width for joins in wraps)
        self.factor = factor
        self.wraps = wraps

    @property
    def above(self) -> int:
        """Pixels above the image."""
        return self.rows * self.factor

    def around(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of a canvas with its margin, in latents."""
        return size[0] + 2 * self.rows, size[1] + 2 * self.columns

    def inside(self, canvas: Canvas) -> Canvas:
        """Return a view of a canvas without its margin."""
        height, width = canvas.height - self.rows, canvas.width - self.columns
        return _Inside(canvas.data[:, self.rows : height, self.columns : width], canvas)

    def extend(self, rows: Rows) -> Rows:
        """Return an image with its margin."""
        return Extended(rows, self.above, self.columns * self.factor, self.wraps)

    def crop(
        self, decoded: Iterable[tuple[int, Pixels]], size: tuple[int, int]
    ) -> Iterator[tuple[int, Pixels]]:
        """Cut the margin off decoded rows.

        Args:
            decoded: Number of the first row, and ``(n, W, 3)`` uint8, margin included.
            size: Height and width of the image in pixels.
        """
        above, left = self.above, self.columns * self.factor
        for top, rows in decoded:
            first, last = max(top, above), min(top + len(rows), above + size[0])
            if first < last:
                yield first - above, rows[first - top : last - top, left : left + size[1]]


class _Inside(Canvas):
    """A canvas without its margin, whose checksum still tells of damage there."""

    def __init__(self, data: Tensor, outer: Canvas) -> None:
        super().__init__(data)
        self._outer = outer

    def checksum(self) -> int:
        """Return the CRC-32 of all values, those of the margin included."""
        return self._outer.checksum()


class Extended:
    """An image that goes on beyond its borders, as its rows are read: mirrored, or at the side that joins.

    Args:
        rows: The image.
        above: Rows above and below.
        beside: Columns left and right.
        wraps: Whether rows and columns join.
    """

    def __init__(self, rows: Rows, above: int, beside: int, wraps: tuple[bool, bool]) -> None:
        self.rows = rows
        self.height, self.width = rows.height + 2 * above, rows.width + 2 * beside
        self._above, self._joins = above, wraps[0]
        self._rows = _reflect(rows.height, above)
        beyond = np.arange(-beside, rows.width + beside) % rows.width
        self._columns = beyond if wraps[1] else _reflect(rows.width, beside)

    def read(self, top: int, bottom: int) -> Pixels:
        """Return rows ``[top, bottom)``, ``(bottom - top, width, 3)`` uint8."""
        if self._joins:
            return read_wrapped(self.rows, top - self._above, bottom - self._above)[:, self._columns]
        at = self._rows[top:bottom]
        first = int(at.min())
        return self.rows.read(first, int(at.max()) + 1)[at - first][:, self._columns]


def _reflect(side: int, margin: int) -> NDArray[np.int64]:
    """Return the positions on an axis and beyond its ends, ``(side + 2 * margin,)``."""
    if side == 1:
        return np.zeros(1 + 2 * margin, dtype=np.int64)
    period = 2 * (side - 1)
    at = np.arange(-margin, side + margin) % period
    return np.minimum(at, period - at)


class Framed(Canvas):
    """A canvas inside the border of another, to be read.

    Args:
        inner: The canvas, which goes on at the opposite side where sides join.
        outer: Canvas with a margin, of which the border is read.
        margin: The margin.
    """

    def __init__(self, inner: Canvas, outer: Canvas, margin: Margin) -> None:
        super().__init__(outer.data)
        self._inner = inner
        self._margin = margin

    def read(self, row: int, column: int, height: int, width: int) -> Tensor:
        """Return a copy of a region, ``(C, height, width)`` fp32."""
        out = super().read(row, column, height, width)
        above, beside = self._margin.border
        rows = range(max(row, above), min(row + height, self.height - above))
        columns = range(max(column, beside), min(column + width, self.width - beside))
        if rows and columns:
            top = (rows.start - self._margin.rows) % self._inner.height
            left = (columns.start - self._margin.columns) % self._inner.width
            part = self._inner.read(top, left, len(rows), len(columns)).to(out)
            out[:, rows.start - row :, columns.start - column :][:, : len(rows), : len(columns)] = part
        return out
