# SPDX-License-Identifier: Apache-2.0
"""Images as the pipelines take and return them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

OutputType = Literal["pil", "np", "pt", "latent"]


def check_output_type(output_type: str) -> None:
    """Refuse an unknown output type.

    Raises:
        ValueError: If it is unknown.
    """
    if output_type not in get_args(OutputType):
        raise ValueError(f"output_type must be one of {', '.join(get_args(OutputType))}, got {output_type!r}")


def from_pixels(pixels: NDArray[np.uint8], output_type: str) -> list[Image.Image] | np.ndarray | torch.Tensor:
    """Return an image in a form of diffusers.

    Args:
        pixels: Image, ``(H, W, 3)``.
        output_type: Form of the result: ``"pil"``, a list with one image; ``"np"``, ``(1, H, W, 3)``, or
            ``"pt"``, ``(1, 3, H, W)``, both float32 in [0, 1].
    """
    if output_type == "pil":
        return [Image.fromarray(pixels)]
    values = pixels[None].astype(np.float32) / 255
    return values if output_type == "np" else torch.from_numpy(values).permute(0, 3, 1, 2)


def join_images(images: Sequence[Any]) -> Any:
    """Return the images of a call as one batch, in the form in which each of them is."""
    first = images[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(list(images))
    return (
        np.concatenate(images) if isinstance(first, np.ndarray) else [one for each in images for one in each]
    )


def join_flags(flags: Sequence[list[bool] | None]) -> list[bool] | None:
    """Return the flags of all images, or ``None`` if nobody looked."""
    given = [each for each in flags if each is not None]
    return [flag for each in given for flag in each] if given else None
