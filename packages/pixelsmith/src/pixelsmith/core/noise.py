# SPDX-License-Identifier: Apache-2.0
"""The noise of a stage, computed when it is read."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

from pixelsmith.core.philox import Stream, Use
from pixelsmith.store.regions import pieces

__all__ = ["CELL", "CellNoise"]

CELL = 64
_CACHE_BYTES = 64 << 20


class CellNoise:
    """Standard normal noise over a canvas of any size, by cells of 64 x 64 latents.

    A cell depends on seed, stage, its place and the number of channels only. So any region can be read in
    any order, on any machine, and a larger canvas begins with the noise of a smaller one.

    Args:
        seed: Random seed.
        channels: Number of channels.
        height: Height of the canvas.
        width: Width of the canvas.
        stage: Number of the stage; each has noise of its own.
    """

    def __init__(self, seed: int, channels: int, height: int, width: int, *, stage: int = 0) -> None:
        self.seed = seed
        self.channels = channels
        self.height = height
        self.width = width
        self.stage = stage
        self._cells: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._capacity = max(16, _CACHE_BYTES // (4 * channels * CELL * CELL))

    def read(self, row: int, column: int, height: int, width: int) -> Tensor:
        """Return the noise of a region that may run over the borders and continue at the opposite side.

        Args:
            row: First row, in [0, canvas height).
            column: First column, in [0, canvas width).
            height: Number of rows.
            width: Number of columns.

        Returns:
            ``(C, height, width)`` fp32 on the CPU.
        """
        out = np.empty((self.channels, height, width), dtype=np.float32)
        for to_rows, from_rows in pieces(row, height, self.height, CELL):
            for to_columns, from_columns in pieces(column, width, self.width, CELL):
                top, left = from_rows.start // CELL, from_columns.start // CELL
                rows = slice(from_rows.start - top * CELL, from_rows.stop - top * CELL)
                columns = slice(from_columns.start - left * CELL, from_columns.stop - left * CELL)
                out[:, to_rows, to_columns] = self._cell(top, left)[:, rows, columns]
        return torch.from_numpy(out)

    def _cell(self, top: int, left: int) -> np.ndarray:
        place = (top, left)
        if place in self._cells:
            self._cells.move_to_end(place)
            return self._cells[place]
        stream = Stream(self.seed, Use.NOISE, self.stage, place)
        cell = stream.normals(self.channels * CELL * CELL).reshape(self.channels, CELL, CELL)
        self._cells[place] = cell
        if len(self._cells) > self._capacity:
            self._cells.popitem(last=False)
        return cell
