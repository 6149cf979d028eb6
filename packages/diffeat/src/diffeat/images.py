# SPDX-License-Identifier: Apache-2.0
"""Conversion of images to tensors."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from common_kernels.runtime.images import ImageError, as_rgb, read_image
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

_log = logging.getLogger(__name__)
ImageLike = str | Path | Image.Image | np.ndarray | Tensor


def load_images(images: ImageLike | Sequence[ImageLike]) -> Iterator[Tensor]:
    """Read images of any form, one at a time.

    Args:
        images: One or several: a path; a Pillow image of any mode; an array ``(H, W)`` or ``(H, W, C)``; a
            tensor ``(H, W)`` or ``(C, H, W)``, see :func:`common_kernels.runtime.images.as_rgb`. Files are
            read upright, in sRGB, transparency over white. Floating colours are kept as they are, everything
            else is converted to 8 bits. A tensor ``(B, C, H, W)`` counts as several.

    Yields:
        RGB tensors ``(3, H, W)``, fp32 in [0, 1].

    Raises:
        TypeError: If an item is not an image.
        ValueError: If an image has a wrong shape or range, too many pixels, or none, or cannot be read.
    """
    several: Sequence[ImageLike]
    if isinstance(images, Tensor) and images.ndim == 4:
        several = list(images)
    elif isinstance(images, str | Path | Image.Image | np.ndarray | Tensor):
        several = [images]
    else:
        several = images
    if not len(several):
        raise ValueError("images must hold at least one image, got none")
    for index, image in enumerate(several):
        yield _load(image, f"image {index}")


def count_images(images: ImageLike | Sequence[ImageLike]) -> int:
    """Return the number of images of :func:`load_images`."""
    if isinstance(images, Tensor):
        return len(images) if images.ndim == 4 else 1
    return 1 if isinstance(images, str | Path | Image.Image | np.ndarray) else len(images)


def _load(image: ImageLike, name: str) -> Tensor:
    if isinstance(image, str | Path):
        file = read_image(image)
        if file.note:
            _log.warning("%s: %s", image, file.note)
        try:
            return to_tensor(file.to_rgb())
        except ImageError as error:
            raise ImageError(f"{image}: {error}") from error
    if isinstance(image, Tensor) and image.is_floating_point():
        floats = image.detach().cpu().float()
    elif isinstance(image, np.ndarray) and image.dtype.kind == "f" and image.ndim == 3:
        array = cast("np.ndarray[Any, Any]", image)
        floats = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32).copy()).movedim(-1, 0)
    else:
        return to_tensor(as_rgb(image, name=name))
    if floats.ndim != 3 or floats.shape[0] != 3:
        return to_tensor(as_rgb(image, name=name))
    low, high = (float(value) for value in floats.aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"{name} must lie in [0, 1], got values from {low:.3g} to {high:.3g}")
    return floats


def to_tensor(image: Image.Image) -> Tensor:
    """Turn an RGB image into ``(3, H, W)``, fp32 in [0, 1]."""
    return torch.from_numpy(np.array(image)).movedim(-1, 0).float() / 255


def to_pillow(image: Tensor) -> Image.Image:
    """Turn ``(3, H, W)`` in [0, 1] into an RGB image."""
    pixels = (image.clamp(0, 1) * 255).round().byte().movedim(0, -1).cpu().numpy()
    return Image.fromarray(pixels)


def fit(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize to ``(height, width)`` pixels, ignoring the aspect ratio, with antialiasing.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        size: Height and width.
    """
    if tuple(image.shape[1:]) == size:
        return image
    resized = F.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)
    return resized[0].clamp(0, 1)


def image_hash(image: Tensor) -> str:
    """SHA-256 of an image's size and values, ``(3, H, W)`` fp32."""
    head = ",".join(map(str, image.shape)).encode()
    return hashlib.sha256(head + image.contiguous().numpy().tobytes()).hexdigest()


def generator_for(seed: int, image: str, purpose: str, draw: int = 0) -> torch.Generator:
    """Return a generator that depends on the image and not on its position in a batch.

    Args:
        seed: Random seed.
        image: Hash of the image.
        purpose: Purpose of the numbers.
        draw: Number of the draw.
    """
    text = f"{seed}:{image}:{purpose}:{draw}".encode()
    number = int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1
    return torch.Generator().manual_seed(number)
