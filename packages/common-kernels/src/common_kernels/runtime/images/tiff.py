# SPDX-License-Identifier: Apache-2.0
"""TIFF files: deep, float, tiled, planar, with several pages."""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from common_kernels.runtime.images.decoding import (
    TEXT_TAGS,
    check_size,
    decode_pillow,
    encode_exif,
    scale_to_16_bits,
    sound_dpi,
)
from common_kernels.runtime.images.file import (
    ORIENTATION_TAG,
    TURNED,
    ImageError,
    ImageFile,
    convert_to_srgb,
    make_upright,
    to_uint8,
    upright_xmp,
)

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it finds is raised or harmless

_ICC_TAG, _XMP_TAG, _RESOLUTION, _RESOLUTION_UNIT, _DNG_VERSION = 34675, 700, (282, 283), 296, 50706
_DTYPES = ("uint16", "float16", "float32", "float64")
_PREMULTIPLIED, _ALPHA = 1, (1, 2)  # kinds of extra samples; 0 is anything
_CODECS_OF_PILLOW = (tifffile.COMPRESSION.LZW, tifffile.COMPRESSION.ZSTD)
_KINDS = ("MINISWHITE", "MINISBLACK", "RGB", "SEPARATED")


def count_pages(file: BinaryIO) -> int:
    """Return how many full images a TIFF holds; reduced copies of the others do not count."""
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        return len(_full_pages(tiff))


def _full_pages(tiff: tifffile.TiffFile) -> list[int]:
    return [index for index in range(len(tiff.pages)) if not _page(tiff, index).is_reduced] or [0]


def _page(tiff: tifffile.TiffFile, index: int) -> tifffile.TiffPage:
    page = tiff.pages[index]
    return page if isinstance(page, tifffile.TiffPage) else page.aspage()


def tiff_size(file: BinaryIO, name: str, max_pixels: int) -> tuple[int, int]:
    """Return height and width of the first page, upright.

    Raises:
        ImageError: If the header claims too many pixels.
    """
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = _page(tiff, _full_pages(tiff)[0])
        check_size(name, page.imagewidth, page.imagelength, max_pixels)
        turned = _tag(page, ORIENTATION_TAG) in TURNED
        return (page.imagewidth, page.imagelength) if turned else (page.imagelength, page.imagewidth)


def decode_tiff(file: BinaryIO, name: str, max_pixels: int, *, page: int | None = None) -> ImageFile:
    """Decode a page of a TIFF.

    Args:
        file: Open image file, anywhere.
        name: Name in error messages.
        max_pixels: Limit of width times height.
        page: Number of the full image, from 0; ``None`` is the first, with a note if there are others.

    Raises:
        ImageError: If the header claims too many pixels, or the pixels are of a kind that has no range.
    """
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        pages = _full_pages(tiff)
        note = f"first of {len(pages)} pages" if len(pages) > 1 and page is None else ""
        page = page or 0
        found = _page(tiff, pages[page])
        check_size(name, found.imagewidth, found.imagelength, max_pixels)
        _check_kind(found, name)
        if found.bitspersample <= 8 or found.photometric == tifffile.PHOTOMETRIC.PALETTE:
            return decode_pillow(file, name, max_pixels, page=pages[page], note=note)
        try:
            if found.compression in _CODECS_OF_PILLOW and find_spec("imagecodecs") is None:
                _unpack_by_pillow(found)
            pixels = found.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            return _decode_without_codec(file, name, max_pixels, pages[page], note)
        pixels, profile, kept = _arrange(found, pixels, _tag(found, _ICC_TAG))
        exif = Image.Exif()
        for tag in TEXT_TAGS:
            if tag in found.tags:
                exif[tag] = str(found.tags[tag].value)
        upright = make_upright(pixels, int(_tag(found, ORIENTATION_TAG) or 1))
        note, xmp = "; ".join(filter(None, [note, kept])), upright_xmp(_tag(found, _XMP_TAG))
        return ImageFile(upright, profile, encode_exif(exif), _dpi(found), note, xmp)


def _tag(page: tifffile.TiffPage, code: int) -> Any:
    tag = page.tags.get(code)
    return None if tag is None else tag.value


def _check_kind(page: tifffile.TiffPage, name: str) -> None:
    """Refuse what has no range or no colours, before anything is decoded."""
    photometric = tifffile.PHOTOMETRIC(page.photometric).name
    if _DNG_VERSION in page.tags or photometric in {"CFA", "LINEAR_RAW"}:
        raise ImageError(f"{name} is a camera raw file: give it its suffix, .dng, or develop it first")
    if page.samplesperpixel > (5 if photometric == "SEPARATED" else 4) or page.imagedepth != 1:
        raise ImageError(
            f"{name} has {page.samplesperpixel} channels and a depth of {page.imagedepth}: "
            "convert it to RGB or grey first"
        )
    if page.bitspersample <= 8 or photometric == "PALETTE":
        return
    if str(page.dtype) not in _DTYPES:
        raise ImageError(
            f"{name} holds {page.dtype} values, whose range is unknown: convert it to 8 or 16 bits or float"
        )
    if photometric not in _KINDS:
        raise ImageError(f"{name} has deep {photometric.lower()} colours: convert it to RGB or grey first")


def _unpack_by_pillow(page: tifffile.TiffPage) -> None:
    """Let Pillow unpack the segments of a page and tifffile do the rest, so that no depth is lost."""
    compression, page.compression = int(page.compression), 1
    decode = page.decode  # of unpacked segments
    page.compression = compression
    contiguous = page.planarconfig == tifffile.PLANARCONFIG.CONTIG
    row_bytes = page.bitspersample // 8 * (page.samplesperpixel if contiguous else 1)

    def unpack_and_decode(data: bytes | None, index: int, **options: Any) -> Any:
        if page.is_tiled:
            size = page.tilelength * page.tilewidth * row_bytes
        else:
            first_row = index % -(-page.imagelength // page.rowsperstrip) * page.rowsperstrip
            size = min(page.rowsperstrip, page.imagelength - first_row) * page.imagewidth * row_bytes
        return decode(data and _unpack(data, compression, size), index, **options)

    page.__dict__["decode"] = unpack_and_decode  # where tifffile keeps what it made of the tags


def _unpack(data: bytes, compression: int, size: int) -> bytes:
    """Unpack bytes as a TIFF of one grey row of 8 bits."""
    layout = {256: size, 257: 1, 258: 8, 259: compression, 262: 1, 273: 0, 277: 1, 278: 1, 279: len(data)}
    layout[273] = 8 + 2 + 12 * len(layout) + 4  # where the data begin
    head = struct.pack("<2sHIH", b"II", 42, 8, len(layout))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in layout.items())
    with Image.open(io.BytesIO(head + entries + bytes(4) + data), formats=["TIFF"]) as row:
        return row.tobytes()


def _decode_without_codec(file: BinaryIO, name: str, max_pixels: int, page: int, note: str) -> ImageFile:
    """Let Pillow decode what tifffile cannot without the package imagecodecs; colours lose their depth."""
    try:
        image = decode_pillow(file, name, max_pixels, page=page, note=note)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is compressed in a way that needs the package imagecodecs") from error
    if image.pixels.dtype == np.uint8:
        note = "; ".join(filter(None, [image.note, "cut to 8 bits: the package imagecodecs would keep 16"]))
        return replace(image, note=note)
    return image


def _arrange(
    page: tifffile.TiffPage, pixels: NDArray[Any], profile: bytes | None
) -> tuple[NDArray[Any], bytes | None, str]:
    """Return the pixels of a page as an :class:`ImageFile` holds them, their profile and a note."""
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32, copy=False)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if pixels.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.dtype == np.uint16:
        pixels = scale_to_16_bits(pixels, 2**page.bitspersample - 1)
    if page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
        return _cmyk_to_rgb(pixels, profile), None, "converted from CMYK"
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        pixels = (65535 if pixels.dtype == np.uint16 else np.float32(1)) - pixels
    pixels, note = _keep_alpha(pixels, page.extrasamples)
    return pixels, profile, note


def _cmyk_to_rgb(pixels: NDArray[Any], profile: bytes | None) -> NDArray[np.uint8]:
    inks = np.ascontiguousarray(to_uint8(pixels[..., :4]))
    image = Image.frombytes("CMYK", (inks.shape[1], inks.shape[0]), inks.tobytes())
    return np.asarray(convert_to_srgb(image, profile) or image.convert("RGB"), dtype=np.uint8)


def _keep_alpha(pixels: NDArray[Any], extra_samples: Sequence[int]) -> tuple[NDArray[Any], str]:
    """Keep the extra channel that is transparency, straight; leave out those of unknown meaning."""
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return pixels.reshape(pixels.shape[:2]), ""
    num_colours = 3 if pixels.shape[2] >= 3 else 1
    colours, kinds = pixels[..., :num_colours], list(extra_samples)
    alpha = next((pixels[..., num_colours + i, None] for i, kind in enumerate(kinds) if kind in _ALPHA), None)
    if alpha is None:
        note = "a channel of unknown meaning left out" if pixels.shape[2] > num_colours else ""
        return (colours if num_colours == 3 else colours[..., 0]), note
    if _PREMULTIPLIED in kinds:
        full = 65535 if pixels.dtype == np.uint16 else 1.0
        straight = colours * (full / np.where(alpha > 0, alpha, full).astype(np.float64))
        colours = (straight.round() if full > 1 else straight).clip(0, full).astype(pixels.dtype)
    return np.concatenate([colours, alpha], axis=-1), ""


def _dpi(page: tifffile.TiffPage) -> tuple[float, float] | None:
    unit = int(_tag(page, _RESOLUTION_UNIT) or 2)
    across, down = (_tag(page, tag) for tag in _RESOLUTION)
    if unit not in (2, 3) or not across or not down or not across[1] or not down[1]:
        return None
    per_inch = 1.0 if unit == 2 else 2.54
    return sound_dpi((across[0] / across[1] * per_inch, down[0] / down[1] * per_inch))
