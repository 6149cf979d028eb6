# SPDX-License-Identifier: Apache-2.0
"""Images that are read in bands of rows, so that none has to fit into memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class Rows(Protocol):
    """An image that can be read in bands of rows."""

    @property
    def height(self) -> int:
        """Pixels."""
        ...

    @property
    def width(self) -> int:
        """Pixels."""
        ...

    def read(self, top: int, bottom: int) -> Pixels:
        """Return rows ``[top, bottom)``, ``(bottom - top, width, 3)``, RGB in [0, 255]; 4 with alpha."""
        ...


class ArrayRows:
    """The rows of an array, which may be a memory map.

    Args:
        array: Pixels, ``(H, W, 3)`` uint8, or ``(H, W, 4)`` with alpha.

    Raises:
        ValueError: If the shape or dtype is another.
    """

    def __init__(self, array: Pixels) -> None:
        if array.ndim != 3 or array.shape[2] not in (3, 4) or array.dtype != np.uint8 or 0 in array.shape:
            raise ValueError(f"pixels must be (H, W, 3) or (H, W, 4) uint8, got {array.shape} {array.dtype}")
        self.array = array

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.array.shape[0])

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.array.shape[1])

    def read(self, top: int, bottom: int) -> Pixels:
        """Return a view of rows ``[top, bottom)``."""
        return self.array[top:bottom]

    def write(self, top: int, rows: Pixels) -> None:
        """Set rows.

        Args:
            top: Number of the first row.
            rows: Pixels, ``(n, width, 3)``.
        """
        self.array[top : top + len(rows)] = rows

    def flush(self) -> None:
        """Flush everything written to the disk."""
        if isinstance(self.array, np.memmap):
            self.array.flush()


class RawImage(ArrayRows):
    """An image on disk, written and read in bands: a ``.npy`` file, mapped into memory.

    Args:
        path: The file.
        writable: Whether bands may be written.

    Raises:
        ValueError: If the file is not such an image, or cut short.
    """

    def __init__(self, path: str | os.PathLike[str], *, writable: bool = False) -> None:
        self.path = Path(path)
        try:
            array = np.load(self.path, mmap_mode="r")  # refuses a short file, which "r+" would fill up
            if writable:
                array = np.load(self.path, mmap_mode="r+")
        except (ValueError, EOFError) as error:
            raise ValueError(f"{self.path} is not a whole image in .npy format ({error})") from error
        super().__init__(array)

    @classmethod
    def create(cls, path: str | os.PathLike[str], height: int, width: int, *, channels: int = 3) -> RawImage:
        """Make a black image, with all of its disk space.

        Args:
            path: File of the image; an existing one is replaced.
            height: Height in pixels.
            width: Width in pixels.
            channels: 3, or 4 with alpha.

        Raises:
            OSError: If the disk is full. A mapped file that finds the disk full later kills the process.
        """
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(height, width, channels))
        if hasattr(os, "posix_fallocate"):
            with Path(path).open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        return cls(path, writable=True)


def bands(rows: Rows, height: int) -> Iterator[tuple[int, Pixels]]:
    """Yield an image from the top down, ``height`` rows at a time, each with the number of its first row."""
    for top in range(0, rows.height, height):
        yield top, rows.read(top, min(top + height, rows.height))


def read_wrapped(rows: Rows, top: int, bottom: int) -> Pixels:
    """Return rows of an image that repeats without end, ``(bottom - top, width, 3)``."""
    parts: list[Pixels] = []
    while top < bottom:
        first = top % rows.height
        count = min(bottom - top, rows.height - first)
        parts.append(rows.read(first, first + count))
        top += count
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
