# SPDX-License-Identifier: Apache-2.0
"""Images in, tensors out."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

ImageLike = str | Path | Image.Image | np.ndarray | Tensor
# checked before decoding: about four times a large camera's picture
MAX_PIXELS = 200_000_000


def load_images(images: ImageLike | Sequence[ImageLike]) -> list[Tensor]:
    """Read images of any form.

    Args:
        images: One or several of: a path; a Pillow image; an array ``(H, W, 3)``, uint8 or floating in [0,
            1]; a tensor ``(3, H, W)`` in [0, 1]. A tensor ``(B, 3, H, W)`` counts as several.

    Returns:
        RGB tensors ``(3, H, W)``, fp32 in [0, 1].

    Raises:
        TypeError: If something is no image.
        ValueError: If an image has a wrong shape or range, too many pixels, or none.
    """
    several: Sequence[ImageLike]
    if isinstance(images, Tensor) and images.ndim == 4:
        several = list(images)
    elif isinstance(images, str | Path | Image.Image | np.ndarray | Tensor):
        several = [images]
    else:
        several = images
    found = [_load(image, index) for index, image in enumerate(several)]
    if not found:
        raise ValueError("images must hold at least one image, got none")
    return found


def _load(image: ImageLike, index: int) -> Tensor:
    if isinstance(image, str | Path):
        return _from_file(Path(image))
    if isinstance(image, Image.Image):
        return _from_pillow(image, f"image {index}")
    if isinstance(image, np.ndarray):
        array = cast("np.ndarray[Any, Any]", image)
        if array.ndim != 3:
            raise ValueError(f"image {index} must be (height, width, 3), got {array.shape}")
        whole = np.ascontiguousarray(array)
        # torch does not take memory that must not be written to
        tensor = torch.from_numpy(whole if whole.flags.writeable else whole.copy()).movedim(-1, 0)
    elif isinstance(image, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers are not checked
        tensor = image
    else:
        raise TypeError(
            f"image {index} must be a path, Pillow image, array or tensor, got {type(image).__name__}"
        )
    if tensor.ndim != 3 or tensor.shape[0] != 3:
        raise ValueError(f"image {index} must have 3 colours and 2 sides, got {tuple(tensor.shape)}")
    if tensor.dtype == torch.uint8:
        return tensor.cpu().float() / 255
    tensor = tensor.detach().cpu().float()
    low, high = (float(value) for value in tensor.aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"image {index} must lie in [0, 1], got values from {low:.3g} to {high:.3g}")
    return tensor


def _from_file(path: Path) -> Tensor:
    try:
        with warnings.catch_warnings():
            # the number of pixels is checked here, before decoding
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                return _from_pillow(opened, f"{path}")
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise ValueError(f"{path} is not an image that can be read") from error
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{path} is damaged or cut short") from error


def _from_pillow(image: Image.Image, what: str) -> Tensor:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{what} has {width}x{height} pixels, more than the {MAX_PIXELS} allowed; shrink it first"
        )
    if image.mode in {"F", "I"}:
        raise ValueError(
            f"{what} holds pixels of mode {image.mode}, which have no range; save it with 8 bits"
        )
    if image.mode.startswith("I;16"):
        grey = torch.from_numpy(np.array(image).astype(np.float32) / 65535)
        return grey.expand(3, -1, -1).contiguous()
    array = np.array(image.convert("RGB"))
    return torch.from_numpy(array).movedim(-1, 0).float() / 255  # (3, H, W)


def fit(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize to ``(height, width)`` pixels, whatever the aspect ratio, with antialiasing.

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
    """A generator that depends on the image and not on its place in a batch.

    Args:
        seed: The user's seed.
        image: Hash of the image.
        purpose: What the numbers are for.
        draw: Number of the draw.
    """
    text = f"{seed}:{image}:{purpose}:{draw}".encode()
    number = int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1
    return torch.Generator().manual_seed(number)
