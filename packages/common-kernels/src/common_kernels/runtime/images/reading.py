# SPDX-License-Identifier: Apache-2.0
"""Images from files and from memory, whatever their kind."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, Union, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from common_kernels.runtime.images.decoding import (
    TIFF_STARTS,
    check_size,
    count_frames,
    decode_pillow,
    drop_broken_exif,
    from_pillow,
    image_errors,
    open_pillow,
)
from common_kernels.runtime.images.file import ORIENTATION_TAG, TURNED, ImageError, ImageFile, to_uint8
from common_kernels.runtime.images.limits import MAX_FRAMES, MAX_PIXELS, RAW

if TYPE_CHECKING:
    from torch import Tensor

ImageSource: TypeAlias = Union[
    str, "os.PathLike[str]", bytes, BinaryIO, Image.Image, "NDArray[Any]", "Tensor"
]

_WHITE = (255, 255, 255)


def read_image(
    path: str | os.PathLike[str] | bytes, *, name: str = "the image", max_pixels: int = MAX_PIXELS
) -> ImageFile:
    """Read an image file without loss of depth, transparency or metadata.

    Args:
        path: File of any kind in ``READABLE``, or its bytes; its contents count, not its suffix. Of several
            frames or pages the first is read, and the note says so.
        name: What bytes are called in errors.
        max_pixels: Limit of width times height, checked before the file is decoded.

    Returns:
        Upright pixels in the depth of the file. A palette becomes RGB or RGBA, a bitmap grey, CMYK and Lab
        become sRGB through their profile.

    Raises:
        ImageError: If the file is missing, a folder, unreadable, no image, damaged, or too large.
    """
    with open_source(path) as file:
        return _decode(file, name_of(path, name), max_pixels)


def read_pages(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Iterator[ImageFile]:
    """Read the pages of a TIFF one at a time, each as :func:`read_image` does; other files have one.

    Args:
        path: Image file.
        max_pixels: Limit of width times height of each page.

    Raises:
        ImageError: As for :func:`read_image`.
    """
    name = str(path)
    with open_source(path) as file:
        if _is_raw(name) or not _is_tiff(file):
            yield _decode(file, name, max_pixels)
            return
        from common_kernels.runtime.images.tiff import count_pages, decode_tiff

        with image_errors(file, name):
            count = count_pages(file)
        for page in range(count):
            with image_errors(file, name):
                image = decode_tiff(file, name, max_pixels, page=page)
            yield image


def read_rgb(
    path: str | os.PathLike[str],
    *,
    max_pixels: int = MAX_PIXELS,
    background: tuple[int, int, int] = _WHITE,
) -> Image.Image:
    """Read an image file as 8-bit RGB, upright, in sRGB.

    Args:
        path: Image file, see :func:`read_image`.
        max_pixels: Limit of width times height, checked before the file is decoded.
        background: Colour under transparent parts, 0 to 255.

    Raises:
        ImageError: As for :func:`read_image`, or if a float image does not lie in [0, 1].
    """
    return _name_errors(read_image(path, max_pixels=max_pixels), str(path), background)


def read_size(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return height and width of an image file, upright, from its header alone.

    Raises:
        ImageError: As for :func:`read_image`, except for damage behind the header.
    """
    name = str(path)
    with open_source(path) as file, image_errors(file, name):
        if _is_raw(name):
            from common_kernels.runtime.images.raw import raw_size

            return raw_size(file, name, max_pixels)
        if _is_tiff(file):
            from common_kernels.runtime.images.tiff import tiff_size

            return tiff_size(file, name, max_pixels)
        with open_pillow(file) as image:
            check_size(name, *image.size, max_pixels)
            drop_broken_exif(image)
            turned = image.getexif().get(ORIENTATION_TAG) in TURNED
            return (image.width, image.height) if turned else (image.height, image.width)


def read_labels(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> NDArray[np.integer[Any]]:
    """Read a label map: the numbers that the file stores, whatever colours a palette gives them.

    Args:
        path: Image file with one channel.
        max_pixels: Limit of width times height, checked before the file is decoded.

    Returns:
        ``(H, W)``, uint8, or more bits if the file has them; a bitmap holds 0 and 1. Not turned by an EXIF
        orientation.

    Raises:
        ImageError: As for :func:`read_image`, or if the file holds colours.
    """
    name = str(path)
    with open_source(path) as file, image_errors(file, name), open_pillow(file) as image:
        check_size(name, *image.size, max_pixels)
        if image.mode not in {"1", "L", "P", "I"} and not image.mode.startswith("I;16"):
            raise ImageError(f"{name} holds colours ({image.mode}), but a label map has one number a pixel")
        image.load()
        labels = np.asarray(image)
        return labels.astype(np.uint8) if labels.dtype == np.bool_ else labels


def read_frames(
    source: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    max_frames: int = MAX_FRAMES,
    background: tuple[int, int, int] = _WHITE,
) -> list[Image.Image]:
    """Read all frames of an animated or multi-page file as 8-bit RGB in sRGB; a still image is one frame.

    Args:
        source: File, its bytes, or a file open for reading bytes.
        name: Name in error messages; the path or "the image" if ``None``.
        max_pixels: Limit of width times height times frames, checked before the file is decoded.
        max_frames: Limit of frames.
        background: Colour under transparent parts, 0 to 255.

    Raises:
        ImageError: As for :func:`read_rgb`, or if there are too many frames.
    """
    with open_source(source) as file:
        name = name or name_of(source)
        with image_errors(file, name):
            if _is_tiff(file):
                return _tiff_frames(file, name, max_pixels, max_frames, background)
            with open_pillow(file) as image:
                count = count_frames(image)
                _check_frames(name, count, *image.size, max_pixels, max_frames)
                if count > 1:
                    frames = ImageSequence.Iterator(image)
                    return [from_pillow(frame, name).to_rgb(background) for frame in frames]
            return [decode_pillow(file, name, max_pixels).to_rgb(background)]


def as_rgb(
    source: ImageSource,
    *,
    name: str = "the image",
    max_pixels: int = MAX_PIXELS,
    background: tuple[int, int, int] = _WHITE,
) -> Image.Image:
    """Return an image of any form as 8-bit RGB, upright, in sRGB.

    Args:
        source: A path; the bytes of an image file, or a file open for reading bytes; a Pillow image of any
            mode; an array ``(H, W)`` or ``(H, W, C)``; a tensor ``(H, W)`` or ``(C, H, W)``. ``C`` is 1
            (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA). Values are uint8 in [0, 255], uint16 in [0, 65535]
            or floating in [0, 1]; an overshoot of up to 0.25, as filters cause it, is clipped.
        name: Name of an image without a path in error messages.
        max_pixels: Limit of width times height, checked before a file is decoded.
        background: Colour under transparent parts, 0 to 255.

    Raises:
        TypeError: If the source or its dtype is none of these.
        ValueError: If shape or values are none of these; an :class:`ImageError` if a file cannot be read.

    Example:
        >>> as_rgb(np.full((2, 3), 0.5)).getpixel((0, 0))
        (128, 128, 128)
    """
    if isinstance(source, str | os.PathLike):
        return read_rgb(source, max_pixels=max_pixels, background=background)
    if isinstance(source, Image.Image):
        image = from_pillow(source, name, max_pixels=max_pixels)
    elif isinstance(source, np.ndarray):
        image = ImageFile(_check_array(source, name))
    elif hasattr(source, "detach") and hasattr(source, "cpu"):
        image = ImageFile(_check_array(_array_of(cast("Tensor", source), name), name))
    elif isinstance(source, bytes | bytearray | memoryview) or hasattr(source, "read"):
        with open_source(cast("bytes | BinaryIO", source)) as file:
            image = _decode(file, name, max_pixels)
    else:
        raise TypeError(
            f"{name} must be a path, bytes, an open file, a Pillow image, an array or a tensor, "
            f"got {type(source).__name__}"
        )
    return _name_errors(image, name, background)


def _name_errors(image: ImageFile, name: str, background: tuple[int, int, int]) -> Image.Image:
    scaled = to_uint8(image.pixels, name)
    return ImageFile(scaled, image.icc_profile).to_rgb(background)


def name_of(source: object, otherwise: str = "the image") -> str:
    """Return the path of a source, or what it is called without one."""
    return str(source) if isinstance(source, str | os.PathLike) else otherwise


@contextmanager
def open_source(
    source: str | os.PathLike[str] | bytes | BinaryIO, *, kind: str = "an image"
) -> Generator[BinaryIO]:
    """Open a regular file, or wrap the bytes of one.

    Args:
        source: File, its bytes, or a file open for reading bytes.
        kind: What the file should be, in error messages.

    Raises:
        ImageError: If it cannot be opened.
    """
    if not isinstance(source, str | os.PathLike):
        is_buffer = isinstance(source, bytes | bytearray | memoryview)
        content: object = source if is_buffer else source.read()
        if isinstance(content, str):
            raise TypeError("a file must be open for reading bytes, not text")
        yield io.BytesIO(content)
        return
    path = Path(source)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{path} is a folder, not {kind}")
        if not stat.S_ISREG(mode):  # a pipe or a device may never end
            raise ImageError(f"{path} is not a regular file")
        file = path.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(f"{path} does not exist") from error
    except PermissionError as error:
        raise ImageError(f"{path} may not be read: check its permissions") from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from error
    with file:
        yield file


def _is_raw(name: str) -> bool:
    return Path(name).suffix.lower() in RAW


def _is_tiff(file: BinaryIO) -> bool:
    start = file.read(4)
    file.seek(0)
    return start in TIFF_STARTS  # Pillow would cut deep ones to 8 bits


def _decode(file: BinaryIO, name: str, max_pixels: int) -> ImageFile:
    if _is_raw(name):
        from common_kernels.runtime.images.raw import decode_raw

        return decode_raw(file, name, max_pixels)
    with image_errors(file, name):
        if _is_tiff(file):
            from common_kernels.runtime.images.tiff import decode_tiff

            return decode_tiff(file, name, max_pixels)
        return decode_pillow(file, name, max_pixels)


def _check_frames(name: str, count: int, width: int, height: int, max_pixels: int, max_frames: int) -> None:
    if count > max_frames:
        raise ImageError(f"{name} has {count} frames, more than {max_frames}: cut it first")
    if count * width * height > max_pixels:
        raise ImageError(
            f"{name} claims {count} x {width} x {height} pixels, more than {max_pixels}: "
            "raise max_pixels, or shrink it first"
        )


def _tiff_frames(
    file: BinaryIO, name: str, max_pixels: int, max_frames: int, background: tuple[int, int, int]
) -> list[Image.Image]:
    from common_kernels.runtime.images.tiff import count_pages, decode_tiff, tiff_size

    count, (height, width) = count_pages(file), tiff_size(file, name, max_pixels)
    _check_frames(name, count, width, height, max_pixels, max_frames)
    pages = (decode_tiff(file, name, max_pixels // count, page=page) for page in range(count))
    return [_name_errors(page, name, background) for page in pages]


def _array_of(tensor: Tensor, name: str) -> NDArray[Any]:
    """Return a tensor ``(H, W)`` or ``(C, H, W)`` as an array with its channels last."""
    tensor = tensor.detach().cpu()
    array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[0] > 4):
        raise ValueError(f"{name} as a tensor must be (H, W) or (1 to 4, H, W), got {tuple(array.shape)}")
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array


def _check_array(array: NDArray[Any], name: str) -> NDArray[Any]:
    if array.ndim not in (2, 3) or array.shape[2:] not in {(), (1,), (2,), (3,), (4,)}:
        raise ValueError(f"{name} as an array must be (H, W) or (H, W, 1 to 4), got {array.shape}")
    if str(array.dtype) not in {"uint8", "uint16"} and array.dtype.kind != "f":
        raise TypeError(f"{name} must be uint8, uint16 or floating, got {array.dtype}")
    if not array.size:
        raise ValueError(f"{name} must have pixels, got shape {array.shape}")
    return array[..., 0] if array.shape[2:] == (1,) else array
