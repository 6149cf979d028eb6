# SPDX-License-Identifier: Apache-2.0
"""Image files in and out, without losing depth, alpha, colour profile or orientation."""

from __future__ import annotations

import io
import logging
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import png
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what it finds is raised or harmless

READABLE = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm"})
WRITABLE = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
MAX_PIXELS = 100_000_000  # a file that claims more is refused before it is decoded

_TIFF = frozenset({".tif", ".tiff"})
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ICC_TAG, _ORIENTATION = 34675, ExifTags.Base.Orientation.value
_RESOLUTION, _RESOLUTION_UNIT = (282, 283), 296
# what an EXIF block and a TIFF can both say about a picture: description, make, model, software, date,
# artist, copyright; the rest of the first directory of a TIFF lays out its file
_TEXT_TAGS = (270, 271, 272, 305, 306, 315, 33432)
_SUB_FOLDERS = (ExifTags.IFD.Exif.value, ExifTags.IFD.GPSInfo.value)
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
    png.Error,
    struct.error,
    zlib.error,
)
# what undoes each EXIF orientation
_UPRIGHT: dict[int, Callable[[NDArray[np.generic]], NDArray[np.generic]]] = {
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


class ImageError(ValueError):
    """A file is no image that can be handled; the message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels and what must survive beside them.

    Attributes:
        pixels: ``(H, W)`` grey or ``(H, W, C)`` with ``C`` of 2 (grey, alpha), 3 or 4; uint8, uint16 or
            float32; upright.
        icc: Colour profile, as bytes.
        exif: EXIF block, as bytes, its orientation reset; a TIFF gets only the texts of its first folder.
        dpi: Resolution, horizontal and vertical.
    """

    pixels: NDArray[np.generic]
    icc: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None


def read_picture(path: Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read an image file.

    Args:
        path: PNG, JPEG, WebP, TIFF, BMP or PNM.
        max_pixels: Refuse a file whose header claims more, before decoding it.

    Returns:
        Upright pixels in the depth of the file; a palette becomes RGB or RGBA, a bitmap grey.

    Raises:
        ImageError: If the file is missing, unreadable, no image, truncated, too large, or of a kind that
            cannot be kept without loss.
    """
    if path.is_dir():
        raise ImageError(f"{path} is a folder")
    try:
        with _pixel_limit(max_pixels), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of size, checked here, and of damage beside the pixels
            with path.open("rb") as file:
                start = file.read(4)
            if start in _TIFF_STARTS:  # whatever its suffix: Pillow would cut it to 8 bits
                return _read_tiff(path, max_pixels)
            return _read_pillow(path, max_pixels)
    except ImageError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"{path} does not exist") from error
    except PermissionError as error:
        raise ImageError(f"{path} may not be read: check its permissions") from error
    except (UnidentifiedImageError, tifffile.TiffFileError) as error:
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


def _check_size(path: Path, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"{path} claims {width} x {height} pixels, more than {max_pixels}: raise --max-pixels to allow it"
        )
    if min(width, height) < 1:
        raise ImageError(f"{path} has no pixels")


def _read_pillow(path: Path, max_pixels: int) -> Picture:
    with Image.open(path) as image:
        _check_size(path, *image.size, max_pixels)
        # cameras add previews to a JPEG, which makes it an MPO; its first frame is the photograph
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            raise ImageError(f"{path} is an animation; extract the frames first")
        if image.format == "TIFF":
            image.load()  # which makes it upright, and must still see the orientation for that
        exif = image.getexif()
        orientation = exif.pop(_ORIENTATION, 1)
        icc, dpi = image.info.get("icc_profile"), _sound_dpi(image.info.get("dpi"))
        pixels = _read_deep_png(path) if image.format == "PNG" else None
        if pixels is None:
            if image.format == "PPM" and image.mode == "RGB" and _is_deep_ppm(path):
                raise ImageError(f"{path} is a PPM of more than 8 bits; convert it to a 16-bit PNG or TIFF")
            image.load()
            pixels = _pillow_pixels(path, image)
    pixels = np.ascontiguousarray(_UPRIGHT[orientation](pixels) if orientation in _UPRIGHT else pixels)
    return Picture(pixels, icc, _exif_bytes(exif, laid_out=image.format == "TIFF"), dpi)


def _exif_bytes(exif: Image.Exif, *, laid_out: bool = False) -> bytes | None:
    if laid_out:
        for tag in set(exif) - {*_TEXT_TAGS, *_SUB_FOLDERS}:
            del exif[tag]
    return exif.tobytes() if len(exif) else None


def _sound_dpi(dpi: tuple[float, float] | None) -> tuple[float, float] | None:
    values = tuple(float(value) for value in dpi or ())
    return (values[0], values[1]) if len(values) == 2 and all(0 < v < 1e6 for v in values) else None


def _pillow_pixels(path: Path, image: Image.Image) -> NDArray[np.generic]:
    see_through = image.info.get("transparency")  # of a PNG: the one colour, or the palette entries
    if image.mode in {"P", "PA"}:
        image = image.convert("RGB" if image.mode == "P" and see_through is None else "RGBA")
    elif image.mode == "1":
        image = image.convert("L" if see_through is None else "LA")
    elif see_through is not None and image.mode in {"L", "RGB"}:
        image = image.convert("LA" if image.mode == "L" else "RGBA")
    if image.format == "PPM" and image.mode == "I":  # 16-bit grey
        return np.asarray(image).astype(np.uint16)
    if image.mode in {"I;16", "I;16B", "I;16L"}:
        return _add_transparency(np.asarray(image).astype(np.uint16), see_through)
    if image.mode not in {"L", "LA", "RGB", "RGBA"}:
        raise ImageError(f"{path} has the colour mode {image.mode}; convert it to RGB or grey first")
    return np.asarray(image)


def _is_deep_ppm(path: Path) -> bool:
    """Whether the greatest value, third number of the header, needs 16 bits, which Pillow would cut to 8."""
    with path.open("rb") as file:
        header = re.sub(rb"#[^\r\n]*", b"", file.read(4096)).split(maxsplit=4)
    return int(header[3]) > 255


def _read_deep_png(path: Path) -> NDArray[np.uint16] | None:
    """Read a 16-bit PNG with colour or alpha, which Pillow would cut to 8 bits; ``None`` for any other."""
    with path.open("rb") as file:
        header = file.read(26)
        bit_depth, colour_type = header[24], header[25]
        if bit_depth != 16 or colour_type == 0:
            return None
        file.seek(0)
        width, height, rows, info = png.Reader(file=file).read()
        values = np.vstack([np.asarray(row, dtype=np.uint16) for row in rows])
    return _add_transparency(values.reshape(height, width, info["planes"]), info.get("transparent"))


def _add_transparency(pixels: NDArray[np.uint16], colour: int | tuple[int, ...] | None) -> NDArray[np.uint16]:
    """Turn the one colour that a PNG declares transparent into a channel."""
    if colour is None:
        return pixels
    planes = pixels.reshape(*pixels.shape[:2], -1)
    alpha = np.where((planes == np.asarray(colour)).all(axis=-1, keepdims=True), 0, 65535)
    return np.concatenate([planes, alpha.astype(np.uint16)], axis=-1)


def _read_tiff(path: Path, max_pixels: int) -> Picture:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        if len(file.pages) > 1:
            raise ImageError(f"{path} has {len(file.pages)} pages; extract one first")
        _check_size(path, page.imagewidth, page.imagelength, max_pixels)
        kind = tifffile.PHOTOMETRIC(page.photometric).name
        if page.bitspersample in (1, 8) or kind == "PALETTE":
            return _read_pillow(path, max_pixels)
        if kind not in {"MINISBLACK", "RGB"} or page.dtype not in (np.dtype(np.uint16), np.dtype(np.float32)):
            raise ImageError(
                f"{path} holds {page.dtype} {kind.lower()}; convert it to 8- or 16-bit RGB or grey"
            )
        if 1 in page.extrasamples:
            raise ImageError(f"{path} has premultiplied transparency; convert it to straight transparency")
        pixels = page.asarray()
        pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
        if pixels.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            pixels = np.moveaxis(pixels, 0, -1)
        if pixels.ndim == 3 and pixels.shape[2] == 1:
            pixels = pixels[..., 0]
        if pixels.ndim not in (2, 3) or pixels.shape[2:] > (4,):
            raise ImageError(f"{path} has pixels of shape {pixels.shape}; convert it to RGB or grey first")
        orientation = int(page.tags[_ORIENTATION].value) if _ORIENTATION in page.tags else 1
        icc = page.tags[_ICC_TAG].value if _ICC_TAG in page.tags else None
        dpi = _tiff_dpi(page)
        exif = Image.Exif()
        for tag in _TEXT_TAGS:
            if tag in page.tags:
                exif[tag] = str(page.tags[tag].value)
    pixels = np.ascontiguousarray(_UPRIGHT[orientation](pixels) if orientation in _UPRIGHT else pixels)
    return Picture(pixels, icc, _exif_bytes(exif), dpi)


def _tiff_dpi(page: tifffile.TiffPage) -> tuple[float, float] | None:
    unit = int(page.tags[_RESOLUTION_UNIT].value) if _RESOLUTION_UNIT in page.tags else 2
    if unit not in (2, 3) or not all(tag in page.tags for tag in _RESOLUTION):
        return None
    per_inch = 1.0 if unit == 2 else 2.54
    across, down = (page.tags[tag].value for tag in _RESOLUTION)
    if not across[1] or not down[1]:
        return None
    return _sound_dpi((across[0] / across[1] * per_inch, down[0] / down[1] * per_inch))


def write_picture(picture: Picture, path: Path) -> None:
    """Write an image file under a temporary name and rename it: a killed run leaves no half file.

    Args:
        picture: What to write.
        path: Its suffix decides the format; the folder must exist.

    Raises:
        ImageError: If the format cannot hold the pixels, or the place cannot be written.
    """
    suffix = path.suffix.lower()
    _check_format(picture, path, suffix)
    part = path.with_name(f".{path.name[:40]}.{os.getpid()}.part")  # a long name must not become too long
    try:
        with part.open("wb") as file:
            _encode(picture, suffix, file)
        part.replace(path)
    except (OSError, ValueError, TypeError, struct.error, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path} cannot be written: {reason}") from error
    finally:
        with suppress(OSError):  # gone after the renaming, or the folder is none
            part.unlink()


def _check_format(picture: Picture, path: Path, suffix: str) -> None:
    pixels = picture.pixels
    has_alpha = pixels.ndim == 3 and pixels.shape[2] in (2, 4)
    if suffix not in WRITABLE:
        raise ImageError(f"{path} has no known image suffix; use one of {', '.join(sorted(WRITABLE))}")
    if pixels.dtype == np.float32 and suffix not in _TIFF:
        raise ImageError(f"{path} cannot hold float pixels; write a .tif")
    if pixels.dtype == np.uint16 and suffix not in _TIFF | {".png"}:
        raise ImageError(f"{path} cannot hold 16 bits per channel; write a .png or .tif")
    if has_alpha and suffix in {".jpg", ".jpeg", ".bmp"}:
        raise ImageError(f"{path} cannot hold transparency; write a .png, .webp or .tif")


def _encode(picture: Picture, suffix: str, file: io.BufferedWriter) -> None:
    pixels = picture.pixels
    if suffix in _TIFF:
        _encode_tiff(picture, file)
    elif pixels.dtype == np.uint16:
        _encode_deep_png(picture, file)
    else:
        options: dict[str, Any] = {}
        if suffix in {".jpg", ".jpeg"}:
            options |= {"quality": 95, "subsampling": 0}
        elif suffix == ".webp":
            options |= {"lossless": True, "exact": True}
        keep = {"icc_profile": picture.icc, "exif": picture.exif, "dpi": picture.dpi}
        options.update({name: value for name, value in keep.items() if value is not None})
        names = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}
        Image.fromarray(pixels).save(file, format=names[suffix], **options)


def _encode_tiff(picture: Picture, file: io.BufferedWriter) -> None:
    pixels = picture.pixels
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    icc, exif = picture.icc, Image.Exif()
    extra: list[tuple[int, int, int, str | bytes, bool]] = [(_ICC_TAG, 7, len(icc), icc, True)] if icc else []
    if picture.exif:
        exif.load(picture.exif)
        texts = {tag: str(exif[tag]).encode() for tag in _TEXT_TAGS if tag in exif}
        extra += [(tag, 2, len(text) + 1, text, True) for tag, text in texts.items()]
    tifffile.imwrite(
        file,
        pixels,
        photometric="rgb" if channels >= 3 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        compression="adobe_deflate",
        predictor=pixels.dtype != np.float32,
        resolution=picture.dpi,
        resolutionunit="INCH" if picture.dpi else None,
        metadata=None,
        software=False,
        extratags=extra,
    )


def _encode_deep_png(picture: Picture, file: io.BufferedWriter) -> None:
    pixels = picture.pixels
    planes = pixels.shape[2] if pixels.ndim == 3 else 1
    height, width = pixels.shape[:2]
    grey: Any = planes < 3  # the package declares the type of its default instead
    writer = png.Writer(width, height, greyscale=grey, alpha=planes in (2, 4), bitdepth=16)
    plain = io.BytesIO()
    writer.write(plain, pixels.reshape(height, -1))
    plain.seek(0)
    # Pillow writes the chunks that pypng does not know; they are taken from a file of one pixel
    donor = io.BytesIO()
    keep = {"icc_profile": picture.icc, "exif": picture.exif, "dpi": picture.dpi}
    extra = {name: value for name, value in keep.items() if value is not None}
    Image.new("L", (1, 1)).save(donor, format="PNG", **extra)
    donor.seek(0)
    ancillary = [
        chunk for chunk in png.Reader(file=donor).chunks() if chunk[0] in (b"iCCP", b"eXIf", b"pHYs")
    ]
    header, *rest = png.Reader(file=plain).chunks()
    png.write_chunks(file, [header, *ancillary, *rest])
