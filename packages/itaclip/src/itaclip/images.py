# SPDX-License-Identifier: Apache-2.0
"""Image files in, as upright 8-bit RGB, and files out in one piece."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from itaclip.text.files import write_bytes

READABLE = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".avif"}
)
MAX_PIXELS = 100_000_000  # a file that claims more is refused before it is decoded

_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    SystemError,
    OverflowError,
    EOFError,
    struct.error,
    zlib.error,
)
_DEEP_GREY = {"I", "I;16", "I;16B", "I;16L", "I;16N"}


class ImageError(ValueError):
    """A file is no image that can be handled; the message is one sentence for the user."""


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image file.

    Args:
        path: Anything that Pillow reads; of several frames the first.
        max_pixels: Refuse a file whose header claims more, before decoding it.

    Returns:
        An RGB image, turned upright as its EXIF says; what is transparent lies on white.

    Raises:
        ImageError: If the file is missing, unreadable, no image, truncated, too large, or holds floats.
    """
    if path.is_dir():
        raise ImageError(f"{path} is a folder")
    try:
        with _pixel_limit(max_pixels), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size, checked here, and of damage beside the pixels
            with Image.open(path) as image:
                if image.width * image.height > max_pixels:
                    raise ImageError(
                        f"{path} has {image.width} x {image.height} pixels, more than {max_pixels}: "
                        "raise --max-pixels to allow it"
                    )
                return _upright_rgb(path, image)
    except ImageError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"{path} does not exist") from error
    except PermissionError as error:
        raise ImageError(f"{path} may not be read: check its permissions") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path} is not an image that can be read") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{path} claims more than {max_pixels} pixels: raise --max-pixels to allow it"
        ) from error
    except _DAMAGE as error:
        raise ImageError(f"{path} is damaged or cut short: {error}") from error


@contextmanager
def _pixel_limit(max_pixels: int) -> Generator[None, None, None]:
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _upright_rgb(path: Path, image: Image.Image) -> Image.Image:
    image.load()
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _DEEP_GREY:
        values = np.asarray(upright).astype(np.int64).clip(0, 65535)
        upright = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    elif upright.mode == "F":
        raise ImageError(f"{path} holds floats; convert it to 8-bit RGB or grey first")
    if upright.has_transparency_data:
        see_through = upright.convert("RGBA")
        white = Image.new("RGBA", see_through.size, (255, 255, 255, 255))
        upright = Image.alpha_composite(white, see_through)
    return upright.convert("RGB")


def shrink(image: Image.Image, max_side: int) -> Image.Image:
    """Return the image with no side longer than ``max_side`` pixels; 0 is no limit."""
    if not max_side or max(image.size) <= max_side:
        return image
    factor = max_side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def save_file(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it; missing folders are made.

    Raises:
        ImageError: If the place cannot be written.
    """
    try:
        write_bytes(path, content)
    except OSError as error:
        raise ImageError(f"{path} cannot be written: {error.strerror or error}") from error


def encode(image: Image.Image, suffix: str) -> bytes:
    """Return the bytes of an image file.

    Raises:
        ImageError: If the suffix is none of ``.png``, ``.jpg``, ``.jpeg`` and ``.webp``.
    """
    kinds = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
    if suffix.lower() not in kinds:
        raise ImageError(f"a picture must be a {', '.join(kinds)} file, got {suffix or 'no suffix'}")
    buffer = io.BytesIO()
    image.save(buffer, format=kinds[suffix.lower()], **({"quality": 92} if suffix.lower() != ".png" else {}))
    return buffer.getvalue()
