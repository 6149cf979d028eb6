# SPDX-License-Identifier: Apache-2.0
"""Images of every kind, turned into normalised tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from common_kernels.runtime.images import as_rgb
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import pil_to_tensor

ImageLike = Image.Image | NDArray[Any] | Tensor

# of the original CLIP, in [0, 1]
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def to_list(images: object) -> tuple[list[ImageLike], bool]:
    """Return the images one by one, and whether only one was given.

    Args:
        images: One image, a sequence of them, or a batch ``(B, H, W, 3)`` as array or ``(B, 3, H, W)`` as
            tensor.

    Raises:
        TypeError: If it is none of these.
    """
    if isinstance(images, Image.Image):
        return [images], True
    if isinstance(images, Tensor | np.ndarray):
        return (list(images), False) if images.ndim == 4 else ([images], True)
    if isinstance(images, Sequence) and not isinstance(images, str | bytes):
        return list(images), False
    raise TypeError(f"images must be Pillow images, arrays or tensors, got {type(images).__name__}")


def to_tensor(image: ImageLike) -> Tensor:
    """Return one image as ``(3, H, W)`` in fp32, in [0, 1].

    Args:
        image: Whatever :func:`common_kernels.runtime.images.as_rgb` takes but files: a Pillow image of any
            mode, an array ``(H, W)`` or ``(H, W, C)``, a tensor ``(H, W)`` or ``(C, H, W)``. Floating
            colours stay as they are; all else becomes 8-bit RGB as a file would: upright, in sRGB,
            transparency over white.

    Raises:
        TypeError: If the type or dtype is not one of these.
        ValueError: If the shape is not one of these, a side is empty or a number is not finite.
    """
    if not isinstance(image, Image.Image | np.ndarray | Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] - callers pass anything
        raise TypeError(f"an image must be a Pillow image, an array or a tensor, got {type(image).__name__}")
    if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.dtype.kind == "f":
        colours = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)
    elif isinstance(image, Tensor) and image.ndim == 3 and len(image) == 3 and image.is_floating_point():
        colours = image.detach()
    else:
        colours = pil_to_tensor(as_rgb(image)) / 255
    if not colours.numel():
        raise ValueError(f"an image must have pixels, got shape {tuple(colours.shape)}")
    if not bool(colours.isfinite().all()):
        raise ValueError("an image must hold finite numbers, got NaN or infinity")
    return colours.float()


def shrink(image: Image.Image, max_side: int) -> Image.Image:
    """Return the image with no side longer than ``max_side`` pixels; 0 is no limit."""
    if not max_side or max(image.size) <= max_side:
        return image
    factor = max_side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.LANCZOS)


def channel_stats(clip_model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of the channels by which a model's images are normalised, in [0, 1].

    Args:
        clip_model: open_clip model; where it states none, they are those of the original CLIP.
    """
    visual: Any = getattr(clip_model, "visual", None)
    stated: dict[str, Any] = getattr(visual, "preprocess_cfg", None) or {}
    mean = stated.get("mean") or getattr(visual, "image_mean", None) or CLIP_MEAN
    std = stated.get("std") or getattr(visual, "image_std", None) or CLIP_STD
    return tuple(mean), tuple(std)


class Normalizer:
    """Resizes and normalises as the image tower was trained.

    Args:
        clip_model: open_clip model; mean and standard deviation are those of its preprocessing, or CLIP's.
    """

    def __init__(self, clip_model: nn.Module) -> None:
        mean, std = channel_stats(clip_model)
        self.mean = torch.tensor(mean, dtype=torch.float32).view(3, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32).view(3, 1, 1)

    def __call__(self, image: Tensor, size: tuple[int, int], device: torch.device) -> Tensor:
        """Return ``(3, *size)`` on the device.

        Args:
            image: ``(3, H, W)`` in [0, 1].
            size: Height and width; bilinear without antialiasing, as the published code resizes.
            device: Device of the result.
        """
        image = image.to(device)
        if tuple(image.shape[-2:]) != size:
            image = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
        return (image - self.mean.to(device)) / self.std.to(device)
