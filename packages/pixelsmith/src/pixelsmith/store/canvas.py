# SPDX-License-Identifier: Apache-2.0
"""Latents of any size, read and written by regions."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from pixelsmith.store.errors import JobFolderError
from pixelsmith.store.regions import pieces

__all__ = ["Canvas"]

_NUMPY = {torch.float32: np.dtype("<f4"), torch.float16: np.dtype("<f2")}
_STRIP_BYTES = 16 << 20


class Canvas:
    """Latents ``(C, H, W)`` in RAM, on a device, or in a mapped file.

    Regions may run over the borders and continue at the opposite side, which only jobs that wrap use.

    Args:
        data: ``(C, H, W)``, fp32 or fp16; shared, not copied.

    Raises:
        TypeError: If the dtype is neither float32 nor float16.
        ValueError: If the shape is not ``(C, H, W)``.

    Example:
        >>> canvas = Canvas.zeros(4, 32, 48)
        >>> canvas.write(30, 0, torch.ones(4, 3, 2))
        >>> canvas.read(0, 0, 2, 3)[0]
        tensor([[1., 1., 0.],
                [0., 0., 0.]])
    """

    def __init__(self, data: Tensor) -> None:
        if data.dtype not in _NUMPY:
            raise TypeError(f"a canvas holds float32 or float16, got {data.dtype}")
        if data.ndim != 3 or 0 in data.shape:
            raise ValueError(f"a canvas must be (C, H, W) with nothing empty, got {tuple(data.shape)}")
        self.data = data
        self._map: np.memmap | None = None

    @classmethod
    def zeros(
        cls,
        channels: int,
        height: int,
        width: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Canvas:
        """Return a canvas of zeros in RAM or on a device."""
        return cls(torch.zeros(channels, height, width, dtype=dtype, device=device))

    @classmethod
    def create(
        cls, path: Path, channels: int, height: int, width: int, *, dtype: torch.dtype = torch.float32
    ) -> Canvas:
        """Return a canvas of zeros in a new ``.npy`` file, mapped into memory.

        Raises:
            TypeError: If the dtype is neither float32 nor float16.
            JobFolderError: If the disk is full. The file is allocated at once: a mapped file that
                finds the disk full later kills the process.
        """
        if dtype not in _NUMPY:
            raise TypeError(f"a canvas holds float32 or float16, got {dtype}")
        shape = (channels, height, width)
        try:
            mapped = npy.open_memmap(path, mode="w+", dtype=_NUMPY[dtype], shape=shape)
            if hasattr(os, "posix_fallocate"):
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise JobFolderError(f"cannot lay out {path.name} for {shape}: {error.strerror}") from error
        return cls._mapped(mapped)

    @classmethod
    def open(cls, path: Path) -> Canvas:
        """Map a canvas file for reading and writing.

        Raises:
            JobFolderError: If it is missing, cut short, or not a canvas.
        """
        try:
            npy.open_memmap(path, mode="r")  # refuses a short file, which the next line would fill up
            mapped = npy.open_memmap(path, mode="r+")
        except (OSError, ValueError) as error:
            raise JobFolderError(
                f"{path} is no readable canvas ({error}); delete the folder of the stage to compute it again"
            ) from error
        if mapped.ndim != 3 or mapped.dtype not in _NUMPY.values():
            raise JobFolderError(f"{path.name} is no canvas: it holds {mapped.dtype} {mapped.shape}")
        return cls._mapped(mapped)

    @classmethod
    def _mapped(cls, mapped: np.memmap) -> Canvas:
        canvas = cls(torch.from_numpy(mapped))
        canvas._map = mapped
        return canvas

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.data.shape[0]

    @property
    def height(self) -> int:
        """Rows."""
        return self.data.shape[1]

    @property
    def width(self) -> int:
        """Columns."""
        return self.data.shape[2]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def dtype(self) -> torch.dtype:
        """Dtype in which values are stored."""
        return self.data.dtype

    def read(self, row: int, column: int, height: int, width: int) -> Tensor:
        """Return a copy of a region, ``(C, height, width)`` fp32, on the device of the canvas."""
        out = torch.empty(self.channels, height, width, dtype=torch.float32, device=self.data.device)
        for to_rows, rows in pieces(row, height, self.height):
            for to_columns, columns in pieces(column, width, self.width):
                out[:, to_rows, to_columns] = self.data[:, rows, columns]
        return out

    def write(self, row: int, column: int, values: Tensor) -> None:
        """Set a region to ``values``, ``(C, height, width)``, rounded to the dtype of the canvas."""
        for from_rows, rows in pieces(row, values.shape[1], self.height):
            for from_columns, columns in pieces(column, values.shape[2], self.width):
                self.data[:, rows, columns] = values[:, from_rows, from_columns].to(self.data)

    def strips(self) -> Iterator[slice]:
        """Yield row slices of a few megabytes that cover the canvas, for work that must not hold it whole."""
        row_bytes = self.channels * self.width * 4
        rows = max(1, _STRIP_BYTES // row_bytes)
        for top in range(0, self.height, rows):
            yield slice(top, min(self.height, top + rows))

    def copy_from(self, other: Canvas) -> None:
        """Copy all values of a canvas of the same shape, strip by strip."""
        if other.data.shape != self.data.shape:
            raise ValueError(
                f"canvases must agree in shape, got {tuple(self.data.shape)} and {tuple(other.data.shape)}"
            )
        for rows in self.strips():
            self.data[:, rows] = other.data[:, rows].to(self.data)

    def checksum(self) -> int:
        """Return the CRC-32 of all values, channel by channel and row by row."""
        crc = 0
        rows = max(1, _STRIP_BYTES // (self.width * self.data.element_size()))
        for channel in self.data:
            for top in range(0, self.height, rows):
                strip = channel[top : top + rows].contiguous().cpu().numpy()
                crc = zlib.crc32(strip.data, crc)
        return crc

    def flush(self) -> None:
        """Wait until a mapped file is on the disk; does nothing otherwise."""
        if self._map is not None:
            self._map.flush()
