# SPDX-License-Identifier: Apache-2.0
"""The image that a job enlarges: read with what belongs to it, brought to another shape, and its digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from common_kernels.runtime.images import ImageError, ImageFile, read_image
from common_kernels.runtime.images.file import to_uint8

from pixelsmith.config import Fit
from pixelsmith.io.metadata import Metadata
from pixelsmith.store.rows import ArrayRows, Pixels
from pixelsmith.store.source import Source

__all__ = ["digest_image", "digest_pixels", "fit_pixels", "read_source"]


def read_source(
    path: Path, digest: str | None, size: tuple[int, int], fit: Fit | None, *, max_pixels: int
) -> Source:
    """Read the image to enlarge, as 8-bit RGB, with its transparency, EXIF and resolution.

    Args:
        path: Image file.
        digest: SHA-256 of the file when the job began.
        size: Height and width that it is brought to.
        fit: How it is brought there, see :class:`pixelsmith.job.JobSpec`.
        max_pixels: Limit of its pixels.

    Raises:
        ImageError: If it is gone, has changed since the job began, or cannot be read.
    """
    if not path.is_file():
        raise ImageError(f"{path} does not exist")
    if digest_image(path) != digest:
        raise ImageError(f"{path} has changed since the job began; start another job")
    found = read_image(path, max_pixels=max_pixels)
    pixels = fit_pixels(np.asarray(found.to_rgb()), size, fit)
    alpha = _alpha(found)
    opacity = None if alpha is None else ArrayRows(fit_pixels(alpha, size, fit, background=0))
    return Source(ArrayRows(pixels), opacity, Metadata(exif=found.exif, dpi=found.dpi))


def _alpha(image: ImageFile) -> Pixels | None:
    """Return the opacity as three equal channels, ``(H, W, 3)``; ``None`` if nothing is transparent."""
    if image.pixels.ndim != 3 or image.pixels.shape[2] not in (2, 4):
        return None
    alpha = to_uint8(np.ascontiguousarray(image.pixels[..., -1]))
    return None if alpha.min() == 255 else np.repeat(alpha[..., None], 3, axis=2)


def fit_pixels(pixels: Pixels, size: tuple[int, int], fit: Fit | None, *, background: int = 255) -> Pixels:
    """Return the middle of an image, or the image in the middle of a background.

    Args:
        pixels: Image, ``(H, W, 3)``.
        size: Height and width of the result: at most those of the image to crop, at least those to pad.
        fit: What is done; ``None`` returns the image as it is.
        background: Value of all channels around a padded image.
    """
    if fit is None:
        return pixels
    height, width = pixels.shape[:2]
    top, left = abs(height - size[0]) // 2, abs(width - size[1]) // 2
    if fit == "crop":
        return np.ascontiguousarray(pixels[top : top + size[0], left : left + size[1]])
    result = np.full((*size, 3), background, dtype=np.uint8)
    result[top : top + height, left : left + width] = pixels
    return result


def digest_image(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_pixels(pixels: Pixels) -> str:
    """Return the SHA-256 of an image in memory."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
