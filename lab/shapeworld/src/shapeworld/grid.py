# SPDX-License-Identifier: Apache-2.0
"""Where the pixels of an image lie in a scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Window = tuple[float, float, float, float]
WHOLE: Window = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Centres of pixels in scene units, x to the right and y down.

    Attributes:
        x: ``(H, W)``; or ``(1, W)`` where all rows are alike.
        y: ``(H, W)``; or ``(H, 1)`` where all columns are alike.
        pixel: Side of a pixel in scene units: a number, or ``(H, W)`` where it changes.
    """

    x: Float
    y: Float
    pixel: float | Float

    @classmethod
    def of_window(cls, height: int, width: int, window: Window) -> Self:
        """Lay pixels evenly over a window ``x0, y0, x1, y1`` of the scene.

        Raises:
            ValueError: If the window is empty.
        """
        x0, y0, x1, y1 = window
        if not (x0 < x1 and y0 < y1):
            raise ValueError(f"window must be x0 < x1 and y0 < y1, got {window}")
        x = x0 + (np.arange(width) + 0.5) * ((x1 - x0) / width)
        y = y0 + (np.arange(height) + 0.5) * ((y1 - y0) / height)
        return cls(x[None], y[:, None], max((x1 - x0) / width, (y1 - y0) / height))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.y.shape[0], self.x.shape[1]

    def near(self, x: float, y: float, radius: float) -> tuple[slice, slice]:
        """Return the rows and columns that hold every pixel touched by a disc; everything on a bent grid."""
        if self.x.shape[0] != 1 or self.y.shape[1] != 1:
            return slice(None), slice(None)
        rows = np.searchsorted(self.y[:, 0], (y - radius - self.pixel, y + radius + self.pixel))
        columns = np.searchsorted(self.x[0], (x - radius - self.pixel, x + radius + self.pixel))
        return slice(*rows.tolist()), slice(*columns.tolist())

    def cut(self, rows: slice, columns: slice) -> Grid:
        """Return a part of the grid."""
        x = self.x[:, columns] if self.x.shape[0] == 1 else self.x[rows, columns]
        y = self.y[rows] if self.y.shape[1] == 1 else self.y[rows, columns]
        pixel = self.pixel if isinstance(self.pixel, float) else self.pixel[rows, columns]
        return Grid(x, y, pixel)


def cover(distance: Float, pixel: float | Float) -> Float:
    """Return how much of a pixel lies on the negative side of an edge, in [0, 1]."""
    return np.clip(0.5 - distance / pixel, 0, 1)
