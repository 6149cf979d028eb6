# SPDX-License-Identifier: Apache-2.0
"""Pillow images, arrays and tensors: taken apart into arrays, and put together again as they came."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from common_kernels.runtime.images import ImageFile
from common_kernels.runtime.images.decoding import from_pillow
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

__all__ = ["ImageLike", "Packed", "pack"]

ImageLike = TypeVar("ImageLike", Image.Image, NDArray[Any], Tensor)

Arrays = list[NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Packed:
    """An image or a batch as arrays.

    Attributes:
        arrays: ``(H, W)`` or ``(H, W, C)`` each.
        unpack: Turns as many results into the kind that came.
    """

    arrays: Arrays
    unpack: Callable[[Arrays], Any]


def pack(image: object) -> Packed:
    """Take an image apart.

    Args:
        image: Pillow image of any mode; array ``(H, W)`` or ``(H, W, C)``; or tensor ``(C, H, W)`` or
            ``(B, C, H, W)``, uint8 or floating.

    Raises:
        TypeError: If it is none of these.
        ValueError: If the shape is another.
    """
    if isinstance(image, Image.Image):
        return _pack_pillow(image)
    if isinstance(image, Tensor):
        return _pack_tensor(image)
    if isinstance(image, np.ndarray):
        return Packed([image], _only)
    kind = type(image).__name__
    cure = "; restore_file takes paths" if isinstance(image, str | os.PathLike) else ""
    raise TypeError(f"image must be a Pillow image, an array, a tensor, or a list of these, got {kind}{cure}")


def _only(results: Arrays) -> NDArray[Any]:
    (result,) = results
    return result


def _pack_pillow(image: Image.Image) -> Packed:
    """Turn upright by the EXIF; palettes, bitmaps, CMYK and Lab become what files of them become."""
    found = from_pillow(image, "the image")

    def unpack(results: Arrays) -> Image.Image:
        result = Image.fromarray(np.ascontiguousarray(_only(results)))
        result.info.update(_beside(found))
        return result

    return Packed([found.pixels], unpack)


def _beside(image: ImageFile) -> dict[str, object]:
    kept = {
        "icc_profile": image.icc_profile, "exif": image.exif, "dpi": image.dpi, "xmp": image.xmp
    }  # fmt: skip
    return {name: value for name, value in kept.items() if value is not None}


def _pack_tensor(image: Tensor) -> Packed:
    if not image.is_floating_point() and image.dtype != torch.uint8:
        raise TypeError(f"a tensor must be uint8 or floating in [0, 1], got {image.dtype}")
    if image.ndim not in (3, 4) or image.shape[-3] not in (1, 2, 3, 4):
        raise ValueError(f"a tensor must be (1 to 4, H, W) or (B, 1 to 4, H, W), got {tuple(image.shape)}")
    host = image.detach().cpu()
    if host.dtype not in (torch.uint8, torch.float32, torch.float64):
        host = host.float()
    batch = host.unbind() if host.ndim == 4 else (host,)

    def unpack(results: Arrays) -> Tensor:
        restored = [torch.from_numpy(result).permute(2, 0, 1) for result in results]
        whole = torch.stack(restored) if image.ndim == 4 else restored[0].contiguous()
        return whole.to(image.device, image.dtype)

    return Packed([each.permute(1, 2, 0).numpy() for each in batch], unpack)
