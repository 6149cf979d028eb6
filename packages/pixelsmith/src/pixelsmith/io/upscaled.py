# SPDX-License-Identifier: Apache-2.0
"""An image enlarged by a network, a tile at a time, as its rows are read."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from pixelsmith.store.rows import Pixels, Rows, read_wrapped

__all__ = ["Upscaled", "Upscaler"]

_TILE, _HALO = 192, 16  # pixels of the image
_KEPT = 2  # rows of tiles in memory


class Upscaler(Protocol):
    """A network that enlarges images."""

    @property
    def scale(self) -> int:
        """Enlargement of the sides."""
        ...

    def enlarge(self, pixels: Pixels) -> Pixels:
        """Return a tile, ``(scale * h, scale * w, 3)`` uint8, of ``(h, w, 3)`` uint8."""
        ...

    def describe(self) -> dict[str, object]:
        """Return everything that decides the result, as JSON values."""
        ...


class Upscaled:
    """An image enlarged by a network.

    Tiles lie on one grid whatever rows are read, so a run that was resumed has the same bytes. They see 16
    pixels beyond their border.

    Args:
        rows: The image.
        upscaler: The network.
        wrap: Whether rows and columns join.
    """

    def __init__(self, rows: Rows, upscaler: Upscaler, *, wrap: tuple[bool, bool] = (False, False)) -> None:
        self.rows = rows
        self.upscaler = upscaler
        self.wrap = wrap
        self.height, self.width = rows.height * upscaler.scale, rows.width * upscaler.scale
        self._held: dict[int, Pixels] = {}  # rows of tiles by number

    def read(self, top: int, bottom: int) -> Pixels:
        """Return rows ``[top, bottom)``, ``(bottom - top, width, 3)`` uint8."""
        side = _TILE * self.upscaler.scale
        parts: list[Pixels] = []
        for number in range(top // side, -(-bottom // side)):
            first = number * side
            parts.append(self._row(number)[max(top - first, 0) : bottom - first])
        return np.concatenate(parts)

    def _row(self, number: int) -> Pixels:
        if number not in self._held:
            while len(self._held) >= _KEPT:
                del self._held[min(self._held)]
            self._held[number] = self._compute(number)
        return self._held[number]

    def _compute(self, number: int) -> Pixels:
        """Return one row of tiles, enlarged."""
        scale, (height, width) = self.upscaler.scale, (self.rows.height, self.rows.width)
        top, stop = number * _TILE, min(height, (number + 1) * _TILE)
        first, last = _around(top, stop, height, wraps=self.wrap[0])
        band = read_wrapped(self.rows, first, last)
        result = np.empty(((stop - top) * scale, self.width, 3), dtype=np.uint8)
        for left in range(0, width, _TILE):
            right = min(width, left + _TILE)
            begin, end = _around(left, right, width, wraps=self.wrap[1])
            tile = self.upscaler.enlarge(np.ascontiguousarray(band[:, np.arange(begin, end) % width]))
            kept = tile[(top - first) * scale :][: (stop - top) * scale, (left - begin) * scale :]
            result[:, left * scale : right * scale] = kept[:, : (right - left) * scale]
        return result


def _around(start: int, stop: int, side: int, *, wraps: bool) -> tuple[int, int]:
    """Return a tile with its halo along an axis."""
    first, last = start - _HALO, stop + _HALO
    return (first, last) if wraps else (max(first, 0), min(last, side))
