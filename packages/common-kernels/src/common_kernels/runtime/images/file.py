# SPDX-License-Identifier: Apache-2.0
"""An image in memory with what belongs to it, and its way to 8-bit sRGB."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

ORIENTATION_TAG = ExifTags.Base.Orientation.value
TURNED = frozenset({5, 6, 7, 8})  # orientations that swap height and width

# resampling filters overshoot the range a little; values beyond this are of another range
_OVERSHOOT = 0.25
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>))\s*\d")
_TO_8_BITS = ((np.arange(65536) + 128) // 257).astype(np.uint8)
_UPRIGHT: dict[int, Callable[[NDArray[np.generic]], NDArray[np.generic]]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}


class ImageError(ValueError):
    """A file or value is no image that can be handled; the message is one sentence for the user."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageFile:
    """Pixels and what must survive beside them.

    Attributes:
        pixels: ``(H, W)`` grey or ``(H, W, C)`` with ``C`` of 2 (grey, alpha), 3 or 4; uint8, uint16 or
            float32; upright; alpha is straight, not premultiplied.
        icc_profile: Colour profile, as bytes.
        exif: EXIF block, as bytes, without its orientation; a TIFF gives only the texts of its first folder.
        dpi: Resolution, horizontal and vertical.
        note: Remark on the reading, such as ``"first of 12 frames"``; else empty.
        xmp: XMP packet, as bytes, its orientation set to upright.
    """

    pixels: NDArray[np.generic]
    icc_profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    note: str = ""
    xmp: bytes | None = None

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    def to_rgb(self, background: tuple[int, int, int] = (255, 255, 255), *, srgb: bool = True) -> Image.Image:
        """Return an 8-bit RGB image.

        Args:
            background: Colour under transparent parts, 0 to 255, in sRGB.
            srgb: Whether the colours are converted from the profile, if there is one, to sRGB.

        Raises:
            ImageError: If float pixels do not lie in [0, 1], see :func:`to_uint8`.
        """
        pixels = to_uint8(self.pixels)
        channels = count_channels(pixels)
        colour = pixels if pixels.ndim == 2 else pixels[..., 0] if channels < 3 else pixels[..., :3]
        image = Image.fromarray(np.ascontiguousarray(colour))
        converted = convert_to_srgb(image, self.icc_profile) if srgb else None
        image = converted or image.convert("RGB")
        if channels in (2, 4):
            alpha = Image.fromarray(np.ascontiguousarray(pixels[..., -1]))
            image = Image.composite(image, Image.new("RGB", image.size, background), alpha)
        return image


def count_channels(pixels: NDArray[np.generic]) -> int:
    """Return the number of channels of ``(H, W)`` or ``(H, W, C)`` pixels."""
    return int(pixels.shape[2]) if pixels.ndim == 3 else 1


def make_upright(pixels: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """Undo an EXIF orientation; an unknown one counts as upright."""
    return np.ascontiguousarray(_UPRIGHT[orientation](pixels) if orientation in _UPRIGHT else pixels)


def upright_xmp(xmp: object) -> bytes | None:
    """Return an XMP packet that claims no rotation any more; ``None`` if there is none."""
    if isinstance(xmp, str):
        xmp = xmp.encode()
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp) if isinstance(xmp, bytes) and xmp else None


def to_uint8(pixels: NDArray[np.generic], name: str = "the image") -> NDArray[np.uint8]:
    """Scale pixels to 8 bits.

    Args:
        pixels: uint8; uint16, whose whole range counts; or floating in [0, 1], where an overshoot of up to
            0.25 is clipped.
        name: Name of the image in error messages.

    Raises:
        ImageError: If floating pixels are not finite or far outside of [0, 1].
    """
    if pixels.dtype == np.uint8:
        return pixels.view(np.uint8)
    if pixels.dtype == np.uint16:
        return _TO_8_BITS[pixels.view(np.uint16)]
    floats = np.asarray(pixels, dtype=np.float32)
    low, high = float(floats.min()), float(floats.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(f"{name} holds NaN or infinite values")
    if low < -_OVERSHOOT or high > 1 + _OVERSHOOT:
        raise ImageError(
            f"{name} holds floats from {low:.3g} to {high:.3g}, but they must lie in [0, 1]: scale them first"
        )
    return np.rint(floats.clip(0, 1) * 255).astype(np.uint8)


def convert_to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image | None:
    """Return an image in sRGB, or ``None`` if there is no profile or it cannot be used for these pixels."""
    if not profile:
        return None
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        description = ImageCms.getProfileDescription(source).strip().lower()
        if description.startswith("srgb") and "linear" not in description:
            return None  # a conversion would only add rounding errors
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def lab_to_srgb(image: Image.Image) -> Image.Image:
    """Return an image of mode ``LAB`` in sRGB, which Pillow converts only by colour profiles."""
    from PIL import ImageCms

    converted = ImageCms.profileToProfile(
        image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None, "not converted in place"
    return converted
