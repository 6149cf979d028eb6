# SPDX-License-Identifier: Apache-2.0
"""The picture that a job enlarges: a file of unknown origin becomes rows of RGB."""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from pixelsmith.io.rows import Pixels

__all__ = ["SourceError", "digest", "read_size", "read_source", "to_rgb"]

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF")
_TURNED = (5, 6, 7, 8)  # values of the EXIF orientation that swap height and width
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, OverflowError, struct.error, zlib.error)


class SourceError(ValueError):
    """A file is no picture that can be used; the message is one sentence for the user."""


def read_size(path: Path, max_pixels: int) -> tuple[int, int]:
    """Return height and width of a picture, upright, decoding no more than its format calls for.

    Args:
        path: The file.
        max_pixels: Refuse what claims more.

    Raises:
        SourceError: If the file is missing, no picture, or too large.
    """
    with _opened(path, max_pixels) as image:
        turned = image.getexif().get(0x0112) in _TURNED
        return (image.width, image.height) if turned else (image.height, image.width)


def read_source(path: Path, max_pixels: int) -> Pixels:
    """Decode a picture.

    Args:
        path: The file; of several frames the first is taken.
        max_pixels: Refuse what claims more, before decoding.

    Returns:
        ``(H, W, 3)`` uint8, upright, in sRGB; what is transparent lies on white.

    Raises:
        SourceError: If the file is missing, damaged, no picture, too large, or holds floating point numbers.
    """
    with _opened(path, max_pixels) as image:
        return np.asarray(to_rgb(ImageOps.exif_transpose(image), str(path)))


def digest(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        SourceError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def _opened(path: Path, max_pixels: int) -> Generator[Image.Image]:
    """Open a picture whose header keeps the limit; name what is wrong with it."""
    try:
        with _pixel_limit(max_pixels), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size, checked here, and of damage beside the pixels
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise SourceError(
                        f"{path} has {image.width} x {image.height} pixels, more than {max_pixels}: "
                        "raise --max-pixels to allow it"
                    )
                yield image
    except SourceError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceError(f"{path} does not exist") from error
    except IsADirectoryError as error:
        raise SourceError(f"{path} is a folder, not a picture") from error
    except PermissionError as error:
        raise SourceError(f"{path} may not be read: check its permissions") from error
    except UnidentifiedImageError as error:
        raise SourceError(f"{path} is no picture in one of the formats {', '.join(_FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise SourceError(
            f"{path} claims more than {max_pixels} pixels: raise --max-pixels to allow it"
        ) from error
    except _DAMAGE as error:
        raise SourceError(f"{path} is damaged or cut short: {error}") from error


@contextmanager
def _pixel_limit(max_pixels: int) -> Generator[None]:
    """Let Pillow refuse by our limit, not by its own."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def to_rgb(image: Image.Image, name: str = "the picture") -> Image.Image:
    """Return a picture of any mode as 8-bit sRGB; what is transparent lies on white.

    Args:
        image: The picture.
        name: What a message calls it.

    Raises:
        SourceError: If it holds floating point numbers.
    """
    if image.mode == "F":
        raise SourceError(f"{name} holds floating point numbers; convert it to 8 or 16 bits first")
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float64)
        image = Image.fromarray((grey.clip(0, 65535) / 257).round().astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", layered.size, "white")
        ground.alpha_composite(layered)
        profile, image = image.info.get("icc_profile"), ground.convert("RGB")
        image.info["icc_profile"] = profile
    return _to_srgb(image)


def _to_srgb(image: Image.Image) -> Image.Image:
    """Carry the colours over from the profile of the file, if it has one that can be used."""
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "L", "CMYK"):
        try:
            found = ImageCms.profileToProfile(
                image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )  # fmt: skip
        except (ImageCms.PyCMSError, OSError):  # a profile that is damaged, or not for these colours
            found = None
        if found is not None:
            return found
    return image.convert("RGB")
