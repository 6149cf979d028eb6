# SPDX-License-Identifier: Apache-2.0
"""Images to files: whole or not at all, with depth, profile, EXIF and resolution."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from common_kernels.runtime.files import atomic_write
from common_kernels.runtime.images.decoding import TEXT_TAGS, from_pillow
from common_kernels.runtime.images.file import ImageError, ImageFile, count_channels
from common_kernels.runtime.images.limits import WRITABLE
from common_kernels.runtime.images.png_stream import Chunk, write_png

_PILLOW_NAMES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}
_TIFF = frozenset({".tif", ".tiff"})
_ICC_TAG, _XMP_TAG = 34675, 700
_LONGEST = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}  # pixels of a side
_XMP_KEYWORD = "XML:com.adobe.xmp"


def write_image(
    image: ImageFile | Image.Image | NDArray[Any], path: str | os.PathLike[str], *, quality: int | None = None
) -> None:
    """Write an image file, whole or not at all.

    Args:
        image: Image to write; an array is ``(H, W)`` or ``(H, W, C)`` with ``C`` of 2 (grey, alpha), 3 or 4,
            uint8, uint16 or floating.
        path: File; its suffix, one of ``WRITABLE``, decides the format.
        quality: Quality of a JPEG or WebP, 1 to 100; ``None`` is a JPEG of 95 and a WebP without loss.

    Raises:
        ImageError: If the format cannot hold the pixels, or the file cannot be written.
        TypeError: If ``image`` is none of these.
    """
    path = Path(path)
    found = _as_file(image)
    check_format(str(path), found.pixels.shape, found.pixels.dtype)
    with write_errors(path), atomic_write(path) as file:
        _encode(found, path.suffix.lower(), file, quality)


@contextmanager
def write_errors(path: Path) -> Generator[None]:
    """Turn whatever goes wrong while an image is written into one sentence.

    Raises:
        ImageError: For anything that a disk or a format can cause.
    """
    try:
        yield
    except ImageError:
        raise
    except (OSError, ValueError, TypeError, struct.error, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path} cannot be written: {reason}") from error


def encode_image(
    image: ImageFile | Image.Image | NDArray[Any], suffix: str, *, quality: int | None = None
) -> bytes:
    """Return the bytes of an image file.

    Args:
        image: Image, see :func:`write_image`.
        suffix: One of ``WRITABLE``, such as ``".png"``.
        quality: Quality, see :func:`write_image`.

    Raises:
        ImageError: If the format cannot hold the pixels.
        TypeError: If ``image`` is no image.
    """
    found, file = _as_file(image), io.BytesIO()
    check_format(suffix.lower(), found.pixels.shape, found.pixels.dtype, name=f"a {suffix} file")
    try:
        _encode(found, suffix.lower(), file, quality)
    except (OSError, ValueError, TypeError, struct.error, OverflowError) as error:
        raise ImageError(f"a {suffix} file cannot hold the image: {error}") from error
    return file.getvalue()


def _as_file(image: object) -> ImageFile:
    if isinstance(image, ImageFile):
        found = image
    elif isinstance(image, Image.Image):
        found = from_pillow(image, "the image")
    elif isinstance(image, np.ndarray):
        found = ImageFile(image.astype(np.float32, copy=False) if image.dtype.kind == "f" else image)
    else:
        raise TypeError(
            f"an image must be an ImageFile, a Pillow image or an array, got {type(image).__name__}"
        )
    pixels = found.pixels
    if str(pixels.dtype) not in {"uint8", "uint16", "float32"}:
        raise ImageError(f"pixels must be uint8, uint16 or floating, got {pixels.dtype}")
    if pixels.ndim not in (2, 3) or count_channels(pixels) not in (1, 2, 3, 4) or not pixels.size:
        raise ImageError(f"pixels must be (H, W) or (H, W, 1 to 4), none of them 0, got shape {pixels.shape}")
    if pixels.shape[2:] == (1,):
        return replace(found, pixels=pixels[..., 0])
    return found


def check_format(
    path: str | os.PathLike[str], shape: tuple[int, ...], dtype: np.dtype[Any], *, name: str | None = None
) -> None:
    """Check that a format can hold an image, before it is made.

    Args:
        path: File, or its suffix alone.
        shape: ``(H, W)`` or ``(H, W, C)``.
        dtype: uint8, uint16 or float32.
        name: Name in errors; the path if ``None``.

    Raises:
        ImageError: If it cannot; the message names formats that can.
    """
    name = name or str(path)
    suffix = str(path).lower() if str(path).startswith(".") else Path(path).suffix.lower()
    if suffix not in WRITABLE:
        raise ImageError(f"{name} has no known image suffix; use one of {', '.join(sorted(WRITABLE))}")
    if dtype == np.float32 and suffix not in _TIFF:
        raise ImageError(f"{name} cannot hold float pixels; write a .tif")
    if dtype == np.uint16 and suffix not in _TIFF | {".png"}:
        raise ImageError(f"{name} cannot hold 16 bits per channel; write a .png or .tif")
    if shape[2:] in ((2,), (4,)) and suffix in {".jpg", ".jpeg", ".bmp"}:
        raise ImageError(f"{name} cannot hold transparency; write a .png, .webp or .tif")
    if max(shape[:2]) > _LONGEST.get(suffix, max(shape[:2])):
        raise ImageError(
            f"{name} cannot hold {shape[1]} x {shape[0]} pixels: a side has at most {_LONGEST[suffix]}; "
            "write a .png or .tif"
        )


def _encode(image: ImageFile, suffix: str, file: BinaryIO, quality: int | None) -> None:
    if suffix in _TIFF:
        _encode_tiff(image, file)
    elif image.pixels.dtype == np.uint16:
        shape, dtype = image.pixels.shape, image.pixels.dtype
        write_png(file, [image.pixels], shape=shape, dtype=dtype, chunks=png_chunks(image))
    else:
        options = _metadata(image, suffix)
        if suffix in {".jpg", ".jpeg"}:
            options |= {"quality": 95, "subsampling": 0} if quality is None else {"quality": quality}
        elif suffix == ".webp":
            options |= {"lossless": True, "exact": True} if quality is None else {"quality": quality}
        Image.fromarray(image.pixels).save(file, format=_PILLOW_NAMES[suffix], **options)


def _metadata(image: ImageFile, suffix: str) -> dict[str, Any]:
    keep: dict[str, Any] = {"icc_profile": image.icc_profile, "exif": image.exif, "dpi": image.dpi}
    if suffix == ".png" and image.xmp:
        keep["pnginfo"] = texts = PngInfo()
        texts.add_itxt(_XMP_KEYWORD, image.xmp)
    else:
        keep["xmp"] = image.xmp
    return {name: value for name, value in keep.items() if value is not None}


def tiff_options(image: ImageFile, shape: tuple[int, ...], dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return what tifffile writes beside the pixels of an image of a shape and dtype."""
    channels, profile = shape[2] if len(shape) == 3 else 1, image.icc_profile
    extra: list[tuple[int, int, int, str | bytes, bool]] = []
    if profile:
        extra.append((_ICC_TAG, 7, len(profile), profile, True))
    if image.xmp:
        extra.append((_XMP_TAG, 1, len(image.xmp), image.xmp, True))
    if image.exif:
        exif = Image.Exif()
        exif.load(image.exif)
        texts = {tag: str(exif[tag]).encode() for tag in TEXT_TAGS if tag in exif}
        extra += [(tag, 2, len(text) + 1, text, True) for tag, text in texts.items()]
    return {
        "photometric": "rgb" if channels >= 3 else "minisblack",
        "planarconfig": "contig" if channels > 1 else None,
        "extrasamples": ["unassalpha"] if channels in (2, 4) else None,
        "compression": "adobe_deflate",
        "predictor": dtype != np.float32,
        "resolution": image.dpi,
        "resolutionunit": "INCH" if image.dpi else None,
        "metadata": None,
        "software": False,
        "extratags": extra,
    }


def _encode_tiff(image: ImageFile, file: BinaryIO) -> None:
    import tifffile

    pixels = image.pixels
    tifffile.imwrite(file, pixels, **tiff_options(image, pixels.shape, pixels.dtype))


def png_chunks(image: ImageFile) -> list[Chunk]:
    """Return the chunks before the pixels of a PNG: profile, EXIF, XMP and resolution."""
    import png

    donor = io.BytesIO()
    # Pillow writes them into a file of one pixel
    Image.new("L", (1, 1)).save(donor, format="PNG", **_metadata(image, ".png"))
    donor.seek(0)
    wanted = (b"iCCP", b"eXIf", b"pHYs", b"iTXt")
    return [(kind, content) for kind, content in png.Reader(file=donor).chunks() if kind in wanted]
