# SPDX-License-Identifier: Apache-2.0
"""Image files whose rows come one band after the other, so that no whole image is in memory."""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common_kernels.runtime.files import atomic_path, atomic_write, check_free_space, make_folder
from common_kernels.runtime.images.encoding import (
    check_format,
    png_chunks,
    tiff_options,
    write_errors,
    write_image,
)
from common_kernels.runtime.images.file import ImageFile
from common_kernels.runtime.images.png_stream import write_png

__all__ = ["write_bands", "write_pages"]

Bands = Iterable[NDArray[Any]]

_TIFF = frozenset({".tif", ".tiff"})
_STRIP = 64  # rows
_LEVEL = 6  # of deflate
_MAPPED = 256 << 20  # bytes above which an image that must be whole lies in a mapped file
_BIG_TIFF = 3_900_000_000  # bytes: offsets of a TIFF have 32 bits


def write_bands(
    path: str | os.PathLike[str],
    bands: Bands,
    *,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    beside: ImageFile,
) -> None:
    """Write an image as its rows come, the whole file or nothing.

    PNG and TIFF need memory for a band; of the other formats the whole image is needed, which lies in a
    memory-mapped file beside the target if it is large.

    Args:
        path: File; its suffix, one of ``WRITABLE``, decides the format.
        bands: Rows from the top down, ``(n, W)`` or ``(n, W, C)``, any number at once.
        shape: ``(H, W)`` or ``(H, W, C)`` of the image.
        dtype: uint8, uint16 or float32.
        beside: Image whose profile, EXIF, XMP and resolution are kept.

    Raises:
        ImageError: If the format cannot hold the image, or the file cannot be written.
    """
    path = Path(path)
    check_format(path, shape, dtype)
    suffix = path.suffix.lower()
    if suffix in _TIFF:
        write_pages(path, [(bands, shape, dtype, beside)])
    elif suffix == ".png":
        with write_errors(path), atomic_write(path) as file:
            write_png(file, bands, shape=shape, dtype=dtype, chunks=png_chunks(beside))
    else:
        with write_errors(path), _canvas(path, shape, dtype) as canvas:
            top = 0
            for band in bands:
                canvas[top : top + len(band)] = band
                top += len(band)
            write_image(replace(beside, pixels=canvas), path)


def write_pages(
    path: str | os.PathLike[str],
    pages: Iterable[tuple[Bands, tuple[int, ...], np.dtype[Any], ImageFile]],
) -> None:
    """Write a TIFF of one or more pages as their rows come, the whole file or nothing.

    Args:
        path: A ``.tif`` or ``.tiff`` file.
        pages: Bands, shape, dtype and what is kept beside the pixels of each page, see :func:`write_bands`.

    Raises:
        ImageError: If a page cannot be held, or the file cannot be written.
    """
    import tifffile

    path = Path(path)
    with write_errors(path), atomic_path(path) as temporary:
        writer: tifffile.TiffWriter | None = None
        try:
            for bands, shape, dtype, beside in pages:
                check_format(path, shape, dtype)
                if writer is None:
                    large = int(np.prod(shape)) * dtype.itemsize > _BIG_TIFF
                    writer = tifffile.TiffWriter(temporary, bigtiff=large)
                strips = _strips(bands, shape[0], predict=dtype != np.float32)
                writer.write(
                    strips,
                    shape=shape,
                    dtype=dtype,
                    rowsperstrip=min(_STRIP, shape[0]),
                    **tiff_options(beside, shape, dtype),
                )
                next(strips, None)  # which finds rows that are too many
        finally:
            if writer is not None:
                writer.close()


def _strips(bands: Bands, height: int, *, predict: bool) -> Iterator[bytes]:
    """Yield packed strips of a TIFF.

    Raises:
        ValueError: If there are too few or too many rows.
    """
    left = height
    for rows in _regroup(bands, _STRIP):
        if len(rows) != min(_STRIP, left):
            raise ValueError(f"the image has {height} rows, got {height - left + len(rows)}")
        left -= len(rows)
        if predict:  # differences of neighbours in a row, Adobe TIFF 6.0, section 14
            lines = rows.copy()
            lines[:, 1:] -= rows[:, :-1]
            rows = lines
        yield zlib.compress(np.ascontiguousarray(rows).tobytes(), _LEVEL)
    if left:
        raise ValueError(f"the image has {height} rows, got {height - left}")


def _regroup(bands: Bands, count: int) -> Iterator[NDArray[Any]]:
    """Yield ``count`` rows at a time, and at last what is left."""
    kept: NDArray[Any] | None = None
    for band in bands:
        kept = band if kept is None or not len(kept) else np.concatenate([kept, band])
        whole = len(kept) // count * count
        for top in range(0, whole, count):
            yield kept[top : top + count]
        kept = kept[whole:]
    if kept is not None and len(kept):
        yield kept


@contextmanager
def _canvas(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Generator[NDArray[Any]]:
    size = int(np.prod(shape)) * dtype.itemsize
    if size <= _MAPPED:
        yield np.empty(shape, dtype)
        return
    check_free_space(make_folder(path.parent), size)
    with tempfile.TemporaryFile(dir=path.parent) as file:
        if hasattr(os, "posix_fallocate"):  # a mapped file that finds the disk full later kills the process
            os.posix_fallocate(file.fileno(), 0, size)
        yield np.memmap(file, dtype, "w+", shape=shape)
