# SPDX-License-Identifier: Apache-2.0
"""Images to files: whole or not at all, with depth, profile, EXIF and resolution."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common_kernels.runtime.files import atomic_write
from common_kernels.runtime.images.decoding import TEXT_TAGS, from_pillow
from common_kernels.runtime.images.file import ImageError, ImageFile, count_channels
from common_kernels.runtime.images.limits import WRITABLE

_PILLOW_NAMES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}
_TIFF = frozenset({".tif", ".tiff"})
_ICC_TAG = 34675


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
    _check_format(found, str(path), path.suffix.lower())
    try:
        with atomic_write(path) as file:
            _encode(found, path.suffix.lower(), file, quality)
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
    _check_format(found, f"a {suffix} file", suffix.lower())
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
        return ImageFile(pixels[..., 0], found.icc_profile, found.exif, found.dpi)
    return found


def _check_format(image: ImageFile, name: str, suffix: str) -> None:
    pixels = image.pixels
    if suffix not in WRITABLE:
        raise ImageError(f"{name} has no known image suffix; use one of {', '.join(sorted(WRITABLE))}")
    if pixels.dtype == np.float32 and suffix not in _TIFF:
        raise ImageError(f"{name} cannot hold float pixels; write a .tif")
    if pixels.dtype == np.uint16 and suffix not in _TIFF | {".png"}:
        raise ImageError(f"{name} cannot hold 16 bits per channel; write a .png or .tif")
    if count_channels(pixels) in (2, 4) and suffix in {".jpg", ".jpeg", ".bmp"}:
        raise ImageError(f"{name} cannot hold transparency; write a .png, .webp or .tif")


def _encode(image: ImageFile, suffix: str, file: BinaryIO, quality: int | None) -> None:
    if suffix in _TIFF:
        _encode_tiff(image, file)
    elif image.pixels.dtype == np.uint16:
        _encode_deep_png(image, file)
    else:
        options = _metadata(image)
        if suffix in {".jpg", ".jpeg"}:
            options |= {"quality": 95, "subsampling": 0} if quality is None else {"quality": quality}
        elif suffix == ".webp":
            options |= {"lossless": True, "exact": True} if quality is None else {"quality": quality}
        Image.fromarray(image.pixels).save(file, format=_PILLOW_NAMES[suffix], **options)


def _metadata(image: ImageFile) -> dict[str, Any]:
    keep = {"icc_profile": image.icc_profile, "exif": image.exif, "dpi": image.dpi}
    return {name: value for name, value in keep.items() if value is not None}


def _encode_tiff(image: ImageFile, file: BinaryIO) -> None:
    import tifffile

    channels, profile = count_channels(image.pixels), image.icc_profile
    extra: list[tuple[int, int, int, str | bytes, bool]] = []
    if profile:
        extra.append((_ICC_TAG, 7, len(profile), profile, True))
    if image.exif:
        exif = Image.Exif()
        exif.load(image.exif)
        texts = {tag: str(exif[tag]).encode() for tag in TEXT_TAGS if tag in exif}
        extra += [(tag, 2, len(text) + 1, text, True) for tag, text in texts.items()]
    tifffile.imwrite(
        file,
        image.pixels,
        photometric="rgb" if channels >= 3 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        compression="adobe_deflate",
        predictor=image.pixels.dtype != np.float32,
        resolution=image.dpi,
        resolutionunit="INCH" if image.dpi else None,
        metadata=None,
        software=False,
        extratags=extra,
    )


def _encode_deep_png(image: ImageFile, file: BinaryIO) -> None:
    import png

    height, width, channels = image.height, image.width, count_channels(image.pixels)
    grey: Any = channels < 3  # the package declares the type of its default instead
    writer = png.Writer(width, height, greyscale=grey, alpha=channels in (2, 4), bitdepth=16)
    plain, donor = io.BytesIO(), io.BytesIO()
    writer.write(plain, image.pixels.reshape(height, -1))
    plain.seek(0)
    # Pillow writes the chunks that pypng does not know; they are taken from a file of one pixel
    Image.new("L", (1, 1)).save(donor, format="PNG", **_metadata(image))
    donor.seek(0)
    ancillary = [
        chunk for chunk in png.Reader(file=donor).chunks() if chunk[0] in (b"iCCP", b"eXIf", b"pHYs")
    ]
    header, *rest = png.Reader(file=plain).chunks()
    png.write_chunks(file, [header, *ancillary, *rest])
