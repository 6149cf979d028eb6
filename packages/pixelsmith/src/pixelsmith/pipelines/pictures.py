# SPDX-License-Identifier: Apache-2.0
"""Pictures as users give them and as they want them back."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pixelsmith.job.source import to_rgb

OutputType = Literal["pil", "np", "pt", "latent"]
Picture = Image.Image | NDArray[np.uint8]


def to_pixels(image: object) -> NDArray[np.uint8]:
    """Return a user's picture as ``(H, W, 3)`` uint8, upright, in sRGB, transparent parts on white.

    Args:
        image: A Pillow image of any mode but ``"F"``, or ``(H, W, 3)`` uint8.

    Raises:
        TypeError: If it is something else.
        ValueError: If it is an array of another shape or dtype, or holds floating point numbers.
    """
    if isinstance(image, Image.Image):
        return np.asarray(to_rgb(ImageOps.exif_transpose(image)))
    if not isinstance(image, np.ndarray):
        raise TypeError(
            f"image must be one Pillow image or (H, W, 3) uint8 array, got {type(image).__name__}"
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    return image


def check_output_type(output_type: str) -> None:
    """Refuse an unknown form of the result.

    Raises:
        ValueError: If it is unknown.
    """
    if output_type not in get_args(OutputType):
        raise ValueError(f"output_type must be one of {', '.join(get_args(OutputType))}, got {output_type!r}")


def from_pixels(pixels: NDArray[np.uint8], output_type: str) -> list[Image.Image] | np.ndarray | torch.Tensor:
    """Return a picture as the pipelines of diffusers return one.

    Args:
        pixels: ``(H, W, 3)``.
        output_type: ``"pil"``: a list with one image; ``"np"``: ``(1, H, W, 3)``, ``"pt"``: ``(1, 3, H, W)``,
            both float32 in [0, 1].
    """
    if output_type == "pil":
        return [Image.fromarray(pixels)]
    values = pixels[None].astype(np.float32) / 255
    return values if output_type == "np" else torch.from_numpy(values).permute(0, 3, 1, 2)
