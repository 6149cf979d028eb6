# SPDX-License-Identifier: Apache-2.0
"""Camera raw files, developed by LibRaw (package rawpy, extra ``common-kernels[raw]``)."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from common_kernels.runtime.images.decoding import check_size
from common_kernels.runtime.images.file import ImageError, ImageFile

__all__ = ["decode_raw", "raw_size"]

_TURNED = (5, 6)  # LibRaw's numbers of quarter turns


@contextmanager
def _opened(file: BinaryIO, name: str, max_pixels: int) -> Generator[Any]:
    try:
        import rawpy
    except ImportError as error:
        raise ImageError(
            f'{name} is a camera raw file, which needs rawpy: pip install "common-kernels[raw]"'
        ) from error
    try:
        with rawpy.imread(file) as raw:
            check_size(name, raw.sizes.width, raw.sizes.height, max_pixels)
            yield raw
    except rawpy.LibRawError as error:
        raise ImageError(f"{name} is damaged, or a raw file of an unknown camera: {error}") from error


def raw_size(file: BinaryIO, name: str, max_pixels: int) -> tuple[int, int]:
    """Return height and width of the developed image, upright.

    Raises:
        ImageError: As for :func:`decode_raw`.
    """
    with _opened(file, name, max_pixels) as raw:
        height, width = int(raw.sizes.height), int(raw.sizes.width)
        return (width, height) if raw.sizes.flip in _TURNED else (height, width)


def decode_raw(file: BinaryIO, name: str, max_pixels: int) -> ImageFile:
    """Develop a raw file with the white balance of the camera.

    Args:
        file: Open file, at its start.
        name: Name in error messages.
        max_pixels: Limit of width times height.

    Returns:
        ``(H, W, 3)``, uint16, upright, in sRGB, without metadata.

    Raises:
        ImageError: If rawpy is missing, or the file is damaged, of an unknown camera, or too large.
    """
    with _opened(file, name, max_pixels) as raw:
        pixels = np.ascontiguousarray(raw.postprocess(use_camera_wb=True, output_bps=16))
    return ImageFile(pixels, note="developed from camera raw")
