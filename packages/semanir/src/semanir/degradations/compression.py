# SPDX-License-Identifier: Apache-2.0
"""JPEG, by Pillow's codec."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from semanir.degradations.drawing import check_images

Subsampling = Literal["4:2:0", "4:2:2", "4:4:4"]

BLOCK = 8  # side of the blocks, in pixels
_CHROMA_BLOCK = 16  # side that a colour block covers at 4:2:0


def compress_jpeg(
    images: Tensor,
    quality: int | Tensor,
    *,
    subsampling: Subsampling = "4:2:0",
    offset: Tensor | None = None,
) -> Tensor:
    """Encode and decode images as JPEG.

    Args:
        images: ``(B, C, H, W)`` in [0, 1]; clipped and rounded to 8 bits first. One channel is a grey JPEG.
        quality: Quality of libjpeg, 1 to 100; a number, or one per image.
        subsampling: Resolution of the chroma.
        offset: ``(B, 2)``, int64: pixels between the corner of the block grid and that of the image, down and
            right, in [0, 16); on the grid if ``None``.

    Returns:
        Shape, dtype and device of ``images``.

    Raises:
        ValueError: If a quality is out of range.
    """
    check_images(images)
    B, _, H, W = images.shape
    qualities = torch.as_tensor(quality).expand(B).tolist()
    if not all(1 <= each <= 100 for each in qualities):
        raise ValueError(f"quality must lie in [1, 100], got {quality}")
    offsets = [(0, 0)] * B if offset is None else [(int(a), int(b)) for a, b in offset.tolist()]
    eight_bit = (images.detach().float().clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    results: list[Tensor] = []
    for image, each, (top, left) in zip(eight_bit, qualities, offsets, strict=True):
        padded = F.pad(image[None].float(), (left, 0, top, 0), mode="replicate")[0].byte()
        results.append(_round_trip(padded, int(each), subsampling)[..., top : top + H, left : left + W])
    return (torch.stack(results).to(images.device).float() / 255).to(images.dtype)


def _round_trip(image: Tensor, quality: int, subsampling: Subsampling) -> Tensor:
    grey = image.shape[0] == 1
    array = image[0].numpy() if grey else np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    options = {} if grey else {"subsampling": subsampling}
    with io.BytesIO() as file:
        Image.fromarray(array).save(file, format="JPEG", quality=quality, **options)
        with Image.open(file) as decoded:
            pixels = torch.from_numpy(np.array(decoded))
    return pixels[None] if grey else pixels.permute(2, 0, 1)


def draw_offsets(count: int, generator: torch.Generator) -> Tensor:
    """Draw where the block grid lies, ``(count, 2)``: aligned in half of the images, anywhere in the others.

    Source: the rule of KAIR, which cuts an aligned or a random crop with equal chance.
    """
    device = generator.device
    anywhere = torch.randint(_CHROMA_BLOCK, (count, 2), generator=generator, device=device)
    moved = torch.rand((count, 1), generator=generator, device=device) < 0.5
    return (anywhere * moved).cpu()
