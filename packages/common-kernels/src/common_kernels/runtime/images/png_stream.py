# SPDX-License-Identifier: Apache-2.0
"""PNG files written from the top down, of 8 or 16 bits and any size that the format allows."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

__all__ = ["LONGEST_SIDE", "Chunk", "write_chunk", "write_png"]

LONGEST_SIDE = 2**31 - 1

Chunk = tuple[bytes, bytes]
"""Kind and content."""

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_LINES = 64  # filtered at once


def write_png(
    file: BinaryIO,
    bands: Iterable[NDArray[Any]],
    *,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    chunks: Sequence[Chunk] = (),
    level: int = 6,
) -> None:
    """Write an image as its rows come; a band is all that is in memory.

    Args:
        file: File open for writing.
        bands: Rows from the top down, ``(n, W)`` or ``(n, W, C)``, any number at once.
        shape: ``(H, W)`` or ``(H, W, C)`` of the image, ``C`` of 1 to 4.
        dtype: uint8 or uint16.
        chunks: Chunks before the pixels, such as a colour profile.
        level: Compression level, 0 to 9.

    Raises:
        ValueError: If a side is longer than the format allows, or the rows are not those of the shape.
    """
    height, width, channels = shape[0], shape[1], shape[2] if len(shape) == 3 else 1
    if max(height, width) > LONGEST_SIDE:
        raise ValueError(f"a side of a PNG has at most {LONGEST_SIDE} pixels, got {height} x {width}")
    header = struct.pack(">IIBBBBB", width, height, 8 * dtype.itemsize, _COLOUR_TYPES[channels], 0, 0, 0)
    file.write(b"\x89PNG\r\n\x1a\n")
    for kind, content in [(b"IHDR", header), *chunks]:
        write_chunk(file, kind, content)
    packer, step = zlib.compressobj(level), channels * dtype.itemsize
    above: NDArray[np.uint8] = np.zeros((1, width * step), dtype=np.uint8)
    done = 0
    for band in bands:
        for top in range(0, len(band), _LINES):
            part = band[top : top + _LINES]
            # 16 bits are stored with the high byte first
            ordered = np.ascontiguousarray(part, dtype=dtype.newbyteorder(">"))
            lines = np.frombuffer(ordered.tobytes(), dtype=np.uint8).reshape(len(part), -1)
            if lines.shape[1] != width * step:
                raise ValueError(f"rows must be those of an image of shape {shape}, got {band.shape}")
            write_chunk(file, b"IDAT", packer.compress(_filter(lines, above, step).tobytes()))
            above, done = lines[-1:], done + len(lines)
    if done != height:
        raise ValueError(f"an image of shape {shape} has {height} rows, got {done}")
    write_chunk(file, b"IDAT", packer.flush())
    write_chunk(file, b"IEND", b"")


def write_chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    """Write a chunk of a PNG, unless it is empty and not the last."""
    if data or kind == b"IEND":
        file.write(struct.pack(">I", len(data)) + kind + data)
        file.write(struct.pack(">I", zlib.crc32(kind + data)))


def _filter(lines: NDArray[np.uint8], above: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Return each line filtered by the predictor that likely compresses best, ``(n, 1 + bytes)``.

    Source: PNG specification (third edition), clause 9; the smallest sum of magnitudes is chosen.
    """
    up = np.concatenate([above, lines[:-1]])
    left, corner = np.zeros_like(lines), np.zeros_like(lines)
    left[:, step:], corner[:, step:] = lines[:, :-step], up[:, :-step]
    candidates = [lines, lines - left, lines - up, lines - _paeth(left, up, corner)]
    # a byte above 127 is a small negative difference
    costs = np.stack([np.abs(found.view(np.int8).astype(np.int16)).sum(axis=1) for found in candidates])
    best = costs.argmin(axis=0)
    result = np.empty((len(lines), lines.shape[1] + 1), dtype=np.uint8)
    result[:, 0] = np.array([0, 1, 2, 4], dtype=np.uint8)[best]
    for number, found in enumerate(candidates):
        result[best == number, 1:] = found[best == number]
    return result


def _paeth(left: NDArray[np.uint8], up: NDArray[np.uint8], corner: NDArray[np.uint8]) -> NDArray[np.uint8]:
    a: NDArray[np.int16] = left.astype(np.int16)
    b: NDArray[np.int16] = up.astype(np.int16)
    c: NDArray[np.int16] = corner.astype(np.int16)
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    return np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, up, corner))
