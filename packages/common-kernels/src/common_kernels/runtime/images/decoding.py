# SPDX-License-Identifier: Apache-2.0
"""From the bytes of an image file to pixels, whatever they claim to be."""

from __future__ import annotations

import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from common_kernels.runtime.images.file import (
    ORIENTATION_TAG,
    ImageError,
    ImageFile,
    convert_to_srgb,
    lab_to_srgb,
    make_upright,
    upright_xmp,
)

# EPS and others that start programs are left out; HEIF is there where a plug-in was registered
_FORMATS = (
    *("PNG", "JPEG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "HEIF", "JPEG2000"),
    *("TGA", "ICO", "PSD", "PCX", "SGI", "QOI", "DDS", "DIB"),
)
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# what an EXIF block and a TIFF can both say about an image: description, make, model, software, date,
# artist, copyright; the rest of the first directory of a TIFF lays out its file
TEXT_TAGS = (270, 271, 272, 305, 306, 315, 33432)
_EXIF_KEYS = ("exif", "Raw profile type exif")
_BROKEN_EXIF = "without its EXIF block, which is damaged"
_SUB_FOLDERS = (ExifTags.IFD.Exif.value, ExifTags.IFD.GPSInfo.value)

_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    SystemError,
    EOFError,
    struct.error,
    zlib.error,
)
_HEIC = re.compile(rb"....ftyp(hei|hev|mif1|msf1)", re.DOTALL)
_FOREIGN = (
    (re.compile(rb"....ftyp(crx )", re.DOTALL), "a camera raw file"),
    (re.compile(rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ", re.DOTALL), "a video"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "a JPEG XL image"),
    (re.compile(rb"\x76\x2f\x31\x01"), "an OpenEXR image"),
    (re.compile(rb"#\?R"), "a Radiance HDR image"),
    (re.compile(rb"\x93NUMPY"), "a NumPy array"),
    (re.compile(rb"%PDF"), "a PDF document"),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "a PostScript document"),
    (
        re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*|<!DOCTYPE[^>]*>\s*)*<svg", re.DOTALL),
        "an SVG drawing",
    ),
)

_lock = threading.Lock()
_inside = ExitStack()  # what the first reader changed and the last one restores
_readers = 0


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # a lock that another thread holds would never open in the child
    os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def _any_size_in_silence() -> Generator[None]:
    """Lift Pillow's limit of pixels and ignore warnings; both are global: the last thread restores them."""
    global _readers
    with _lock:
        if not _readers:
            _inside.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # about size, checked here, and about damage beside the pixels
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            _inside.callback(setattr, Image, "MAX_IMAGE_PIXELS", limit)
        _readers += 1
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if not _readers:
                _inside.close()


@contextmanager
def image_errors(file: BinaryIO, name: str) -> Generator[None]:
    """Turn whatever goes wrong while an image is read into one sentence; threads may be here together.

    Raises:
        ImageError: For anything that a bad file can cause.
    """
    with _any_size_in_silence():
        try:
            yield
        except ImageError:
            raise
        except UnidentifiedImageError as error:
            raise ImageError(_what_it_is(file, name)) from error
        except _DAMAGE as error:
            raise ImageError(f"{name} is damaged or cut short: {error}") from error


def _what_it_is(file: BinaryIO, name: str) -> str:
    file.seek(0)
    start = file.read(1024)
    if not start:
        return f"{name} is empty"
    if _HEIC.match(start):
        return f'{name} is a HEIC image, which needs pillow-heif: pip install "common-kernels[heif]"'
    for pattern, kind in _FOREIGN:
        if pattern.match(start):
            return f"{name} is {kind}, which is not supported: convert it to PNG, JPEG or TIFF"
    return f"{name} is not an image that can be read"


def check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    """Refuse an image that has too many pixels, or none.

    Raises:
        ImageError: If it does.
    """
    if width * height > max_pixels:
        raise ImageError(
            f"{name} claims {width} x {height} pixels, more than {max_pixels}: "
            "raise max_pixels, or shrink it first"
        )
    if min(width, height) < 1:
        raise ImageError(f"{name} has no pixels")


def open_pillow(file: BinaryIO) -> Image.Image:
    """Open an image of a format that is safe to open."""
    Image.init()
    start = file.read(16)
    file.seek(0)
    if _HEIC.match(start) and "HEIF" not in Image.OPEN and find_spec("pillow_heif") is not None:
        from pillow_heif import HeifImageFile

        return HeifImageFile(file)  # its plug-in would be registered for the whole process
    return Image.open(file, formats=[kind for kind in _FORMATS if kind in Image.OPEN])


def count_frames(image: Image.Image) -> int:
    """Return the number of frames of an animation; 1 for what only has previews or layers."""
    return 1 if image.format in {"MPO", "PSD"} else int(getattr(image, "n_frames", 1))


def decode_pillow(file: BinaryIO, name: str, max_pixels: int, *, page: int = 0, note: str = "") -> ImageFile:
    """Decode what Pillow reads without loss, and PNG and PNM of 16 bits, which it would cut to 8.

    Args:
        file: Open image file, anywhere.
        name: Name in error messages.
        max_pixels: Limit of width times height.
        page: Page of a TIFF.
        note: Note of the result, extended by what happens here.

    Raises:
        ImageError: If the header claims too many pixels, or the colours cannot be converted.
    """
    file.seek(0)
    with open_pillow(file) as image:
        if page:
            image.seek(page)
        check_size(name, *image.size, max_pixels)
        is_tiff = image.format == "TIFF"
        frames = 1 if is_tiff else count_frames(image)
        if is_tiff:
            image.load()  # which makes it upright, and must still see the orientation for that
        broken = drop_broken_exif(image)
        exif = image.getexif()
        orientation = exif.pop(ORIENTATION_TAG, 1)
        dpi = sound_dpi(image.info.get("dpi"))
        notes = [note, f"first of {frames} frames" if frames > 1 else ""]
        if image.format == "HEIF" and int(image.info.get("bit_depth", 8)) > 8:
            notes.append("cut to 8 bits")
        profile: bytes | None = image.info.get("icc_profile")
        xmp = upright_xmp(image.info.get("xmp"))
        pixels = _deep_pixels(file, image)
        if pixels is None:
            image.load()
            image, profile, converted = _to_grey_or_rgb(image, profile)
            pixels = _pixels_of(image, name)
            notes.append(converted)
        exif_bytes = encode_exif(exif, laid_out=is_tiff)
    notes.append(_BROKEN_EXIF if broken or (len(exif) and exif_bytes is None) else "")
    note = "; ".join(filter(None, notes))
    return ImageFile(make_upright(pixels, orientation), profile or None, exif_bytes, dpi, note, xmp)


def from_pillow(image: Image.Image, name: str, *, max_pixels: int | None = None) -> ImageFile:
    """Turn a Pillow image of any mode into an :class:`ImageFile`.

    Raises:
        ImageError: If it is too large, cannot be decoded, or is of an unknown mode.
    """
    if max_pixels is not None:
        check_size(name, *image.size, max_pixels)
    try:
        if _has_broken_exif(image):
            image = image.copy()  # the block stays in that of the caller
            drop_broken_exif(image)
        upright = ImageOps.exif_transpose(image)
        drop_broken_exif(upright)  # which JPEG told only once
    except _DAMAGE as error:  # opened before, and decoded only now
        raise ImageError(f"{name} is damaged or cut short: {error}") from error
    exif, dpi = upright.getexif(), sound_dpi(upright.info.get("dpi"))
    converted, profile, note = _to_grey_or_rgb(upright, upright.info.get("icc_profile"))
    exif_bytes = encode_exif(exif, laid_out=image.format == "TIFF")
    xmp = upright_xmp(image.info.get("xmp"))
    return ImageFile(_pixels_of(converted, name), profile, exif_bytes, dpi, note, xmp)


def _has_broken_exif(image: Image.Image) -> bool:
    """Return whether an image has an EXIF block that cannot be read; what ails the pixels is raised."""
    try:
        image.getexif()
    except _DAMAGE:
        if not any(key in image.info for key in _EXIF_KEYS):
            raise
        return True
    return False


def drop_broken_exif(image: Image.Image) -> bool:
    """Take an EXIF block that cannot be read from an image, whose pixels do not need it."""
    broken = _has_broken_exif(image)
    for key in _EXIF_KEYS if broken else ():
        image.info.pop(key, None)
    return broken


def encode_exif(exif: Image.Exif, *, laid_out: bool = False) -> bytes | None:
    """Return an EXIF block as bytes, without the layout of its file; ``None`` if it is empty or damaged."""
    if laid_out:
        for tag in set(exif) - {*TEXT_TAGS, *_SUB_FOLDERS}:
            del exif[tag]
    try:
        return exif.tobytes() if len(exif) else None
    except _DAMAGE:  # of a sub-folder, which is read only now
        return None


def sound_dpi(dpi: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return a resolution if both numbers make sense."""
    values = tuple(float(value) for value in dpi or ())
    return (values[0], values[1]) if len(values) == 2 and all(0 < v < 1e6 for v in values) else None


def _to_grey_or_rgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None, str]:
    """Convert other colour models to sRGB.

    Returns:
        The image, the profile that still holds, and a note.
    """
    mode = image.mode
    if mode not in {"CMYK", "LAB", "YCbCr", "HSV"}:
        return image, profile, ""
    converted = convert_to_srgb(image, profile)
    if converted is None:
        converted = lab_to_srgb(image) if mode == "LAB" else image.convert("RGB")
    return converted, None, f"converted from {mode}"


def _pixels_of(image: Image.Image, name: str) -> NDArray[np.generic]:
    """Return the pixels of a Pillow image of any mode, as an :class:`ImageFile` holds them.

    Raises:
        ImageError: If they are integers beyond 16 bits, or of an unknown mode.
    """
    see_through = image.info.get("transparency")  # in a PNG: the one colour, or the palette entries
    mode = image.mode
    if mode in {"P", "PA"}:
        image = image.convert("RGB" if mode == "P" and see_through is None else "RGBA")
    elif mode == "1":
        image = image.convert("L" if see_through is None else "LA")
    elif see_through is not None and mode in {"L", "RGB"}:
        image = image.convert("LA" if mode == "L" else "RGBA")
    elif mode in {"RGBX", "RGBa", "La"}:
        image = image.convert({"RGBX": "RGB", "RGBa": "RGBA", "La": "LA"}[mode])
    elif mode == "F":
        return np.asarray(image, dtype=np.float32)
    elif mode == "I" or mode.startswith("I;16"):
        values = np.asarray(image)
        if mode == "I" and values.size and (values.min() < 0 or values.max() > 65535):
            raise ImageError(
                f"{name} holds integers of 32 bits, whose range is unknown: save it with 16 bits"
            )
        return add_transparency(values.astype(np.uint16), see_through)
    if image.mode not in {"L", "LA", "RGB", "RGBA"}:
        raise ImageError(f"{name} has the colour mode {mode}: convert it to RGB or grey first")
    return np.asarray(image)


def _deep_pixels(file: BinaryIO, image: Image.Image) -> NDArray[np.uint16] | None:
    """Read 16 bits where Pillow would cut to 8; ``None`` where it would not."""
    if image.format == "PNG":
        file.seek(24)
        bit_depth, colour_type = file.read(2)
        return _read_deep_png(file) if bit_depth == 16 and colour_type != 0 else None
    if image.format == "PPM":
        return _read_deep_pnm(file)
    return None


def _read_deep_png(file: BinaryIO) -> NDArray[np.uint16]:
    import png

    file.seek(0)
    try:
        width, height, rows, info = png.Reader(file=file).read()
        channels = int(info["planes"])
        values = np.empty((height, width * channels), dtype=np.uint16)
        for number, row in zip(range(height), rows, strict=True):
            values[number] = row
    except png.Error as error:
        raise ValueError(str(error)) from error
    return add_transparency(values.reshape(height, width, channels), info.get("transparent"))


def _read_deep_pnm(file: BinaryIO) -> NDArray[np.uint16] | None:
    file.seek(0)
    header = re.match(
        rb"P([56])(?:\s|#[^\r\n]*)+(\d+)(?:\s|#[^\r\n]*)+(\d+)(?:\s|#[^\r\n]*)+(\d+)\s", file.read(4096)
    )
    if header is None or int(header[4]) < 256:
        return None
    kind, width, height, largest = map(int, header.groups())
    file.seek(header.end())
    channels = 1 if kind == 5 else 3
    values = np.frombuffer(file.read(2 * width * height * channels), dtype=">u2").astype(np.uint16)
    shape = (height, width) if channels == 1 else (height, width, channels)
    return scale_to_16_bits(values.reshape(shape), largest)


def scale_to_16_bits(values: NDArray[np.uint16], largest: int) -> NDArray[np.uint16]:
    """Spread values from 0 to ``largest`` over all 16 bits."""
    if largest == 65535:
        return values
    return ((values.astype(np.uint32).clip(0, largest) * 65535 + largest // 2) // largest).astype(np.uint16)


def add_transparency(pixels: NDArray[np.uint16], colour: int | tuple[int, ...] | None) -> NDArray[np.uint16]:
    """Turn the one colour that a PNG declares transparent into a channel."""
    if colour is None:
        return pixels
    planes = pixels.reshape(*pixels.shape[:2], -1)
    alpha = np.where((planes == np.asarray(colour)).all(axis=-1, keepdims=True), 0, 65535)
    return np.concatenate([planes, alpha.astype(np.uint16)], axis=-1)
