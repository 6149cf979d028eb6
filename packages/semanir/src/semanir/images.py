# SPDX-License-Identifier: Apache-2.0
"""Image files in and out, without losing depth, alpha, colour profile or orientation."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import png
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

READABLE = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm"})
WRITABLE = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
MAX_PIXELS = 100_000_000  # a file that claims more is refused before it is decoded

_TIFF = frozenset({".tif", ".tiff"})
_ICC_TAG, _ORIENTATION = 34675, ExifTags.Base.Orientation.value
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
        pixels: ``(H, W)`` grey or ``(H, W, C)`` with ``C`` of 2 (grey, alpha), 3 or 4; uint8, uint16 or float32;
            upright.
        icc: Colour profile, as bytes.
        exif: EXIF block, as bytes, its orientation reset.
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
        ImageError: If the file is missing, unreadable, no image, truncated, too large, or of a kind that cannot
            be kept without loss.
    """
    if path.is_dir():
        raise ImageError(f"{path} is a folder")
    try:
        with _pixel_limit(max_pixels), warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if path.suffix.lower() in _TIFF:
                return _read_tiff(path, max_pixels)
            return _read_pillow(path, max_pixels)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist") from error
    except PermissionError as error:
        raise ImageError(f"{path} may not be read: check its permissions") from error
    except (UnidentifiedImageError, tifffile.TiffFileError) as error:
        raise ImageError(f"{path} is not an image that can be read") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{path} claims more than {max_pixels} pixels: raise --max-pixels to allow it"
        ) from error
    except (OSError, SyntaxError, ValueError, png.Error, EOFError) as error:
        raise ImageError(f"{path} is damaged or cut short: {error}") from error


@contextmanager
def _pixel_limit(max_pixels: int) -> Iterator[None]:
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
        if getattr(image, "n_frames", 1) > 1:
            raise ImageError(f"{path} is an animation; extract the frames first")
        exif = image.getexif()
        orientation = exif.pop(_ORIENTATION, 1)
        icc, dpi = image.info.get("icc_profile"), image.info.get("dpi")
        pixels = _read_deep_png(path) if image.format == "PNG" else None
        if pixels is None:
            image.load()
            pixels = _pillow_pixels(path, image)
    pixels = np.ascontiguousarray(_UPRIGHT[orientation](pixels) if orientation in _UPRIGHT else pixels)
    return Picture(pixels, icc, exif.tobytes() if len(exif) else None, dpi)


def _pillow_pixels(path: Path, image: Image.Image) -> NDArray[np.generic]:
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    if image.mode in {"I;16", "I;16B", "I;16L"}:
        return np.asarray(image).astype(np.uint16)
    if image.mode not in {"L", "LA", "RGB", "RGBA"}:
        raise ImageError(f"{path} has the colour mode {image.mode}; convert it to RGB or grey first")
    return np.asarray(image)


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
    return values.reshape(height, width, info["planes"])


def _read_tiff(path: Path, max_pixels: int) -> Picture:
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        if len(file.pages) > 1:
            raise ImageError(f"{path} has {len(file.pages)} pages; extract one first")
        _check_size(path, page.imagewidth, page.imagelength, max_pixels)
        kind = page.photometric.name
        if page.dtype == np.uint8 or kind == "PALETTE":
            return _read_pillow(path, max_pixels)
        if kind not in {"MINISBLACK", "RGB"} or page.dtype not in (np.uint16, np.float32):
            raise ImageError(
                f"{path} holds {page.dtype} {kind.lower()}; convert it to 8- or 16-bit RGB or grey"
            )
        pixels = page.asarray()
        if page.planarconfig.name == "SEPARATE":
            pixels = np.moveaxis(pixels, 0, -1)
        orientation = int(page.tags[_ORIENTATION].value) if _ORIENTATION in page.tags else 1
        icc = page.tags[_ICC_TAG].value if _ICC_TAG in page.tags else None
    pixels = np.ascontiguousarray(_UPRIGHT[orientation](pixels) if orientation in _UPRIGHT else pixels)
    return Picture(pixels, icc)


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
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            _encode(picture, suffix, file)
        part.replace(path)
    except OSError as error:
        raise ImageError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


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
        options: dict[str, object] = {
            "jpg": {"quality": 95, "subsampling": 0},
            "webp": {"lossless": True},
        }.get(suffix[1:].replace("jpeg", "jpg"), {})
        keep = {"icc_profile": picture.icc, "exif": picture.exif, "dpi": picture.dpi}
        options.update({name: value for name, value in keep.items() if value is not None})
        names = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP"}
        Image.fromarray(pixels).save(file, format=names[suffix], **options)


def _encode_tiff(picture: Picture, file: io.BufferedWriter) -> None:
    pixels = picture.pixels
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    icc = picture.icc
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
        extratags=[(_ICC_TAG, 7, len(icc), icc, True)] if icc else [],
    )


def _encode_deep_png(picture: Picture, file: io.BufferedWriter) -> None:
    pixels = picture.pixels
    planes = pixels.shape[2] if pixels.ndim == 3 else 1
    height, width = pixels.shape[:2]
    writer = png.Writer(width, height, greyscale=planes < 3, alpha=planes in (2, 4), bitdepth=16)
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
