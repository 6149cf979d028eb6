# SPDX-License-Identifier: Apache-2.0
"""PNG files written row by row, of any size that the format allows."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from common_kernels.runtime.files import atomic_write
from numpy.typing import NDArray

from pixelsmith.io.metadata import NO_METADATA, Metadata
from pixelsmith.store.rows import Pixels, Rows, bands

_BAND = 64
_MOST = 2**31 - 1


def write_png(path: Path, rows: Rows, *, level: int = 6, metadata: Metadata = NO_METADATA) -> None:
    """Write an image, 8 bits per channel, RGB or RGBA; the file appears when it is complete.

    Args:
        path: Output file.
        rows: The image.
        level: Compression level, 0 to 9.
        metadata: Texts, EXIF and resolution.

    Raises:
        ValueError: If a side is longer than the format allows.
    """
    if max(rows.height, rows.width) > _MOST:
        raise ValueError(f"a side of a PNG has at most {_MOST} pixels, got {rows.height} x {rows.width}")
    packer, channels = zlib.compressobj(level), rows.read(0, 1).shape[2]
    with atomic_write(path) as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        _chunk(
            file,
            b"IHDR",
            struct.pack(">IIBBBBB", rows.width, rows.height, 8, 2 if channels == 3 else 6, 0, 0, 0),
        )
        for kind, content in metadata.png_chunks():
            _chunk(file, kind, content)
        above = np.zeros((1, rows.width * channels), dtype=np.uint8)
        for _, band in bands(rows, _BAND):
            lines = band.reshape(len(band), -1)
            _chunk(file, b"IDAT", packer.compress(_filter(lines, above, channels).tobytes()))
            above = lines[-1:].copy()
        _chunk(file, b"IDAT", packer.flush())
        _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, kind: bytes, data: bytes) -> None:
    if data or kind == b"IEND":
        file.write(struct.pack(">I", len(data)) + kind + data)
        file.write(struct.pack(">I", zlib.crc32(kind + data)))


def _filter(lines: Pixels, above: Pixels, channels: int) -> Pixels:
    """Return each line filtered by the predictor that likely compresses best, ``(n, 1 + C W)``.

    Source: PNG specification (third edition), clause 9; the smallest sum of magnitudes is chosen.
    """
    up = np.concatenate([above, lines[:-1]])
    left, corner = np.zeros_like(lines), np.zeros_like(lines)
    left[:, channels:], corner[:, channels:] = lines[:, :-channels], up[:, :-channels]
    candidates = [lines, lines - left, lines - up, lines - _paeth(left, up, corner)]
    # a byte above 127 is a small negative difference
    costs = np.stack([np.abs(found.view(np.int8).astype(np.int16)).sum(axis=1) for found in candidates])
    best = costs.argmin(axis=0)
    result = np.empty((len(lines), lines.shape[1] + 1), dtype=np.uint8)
    result[:, 0] = np.array([0, 1, 2, 4], dtype=np.uint8)[best]
    for number, found in enumerate(candidates):
        result[best == number, 1:] = found[best == number]
    return result


def _paeth(left: Pixels, up: Pixels, corner: Pixels) -> Pixels:
    a: NDArray[np.int16] = left.astype(np.int16)
    b: NDArray[np.int16] = up.astype(np.int16)
    c: NDArray[np.int16] = corner.astype(np.int16)
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    return np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, up, corner))
