# SPDX-License-Identifier: Apache-2.0
"""Random numbers from an explicit generator, and what every degradation asks of a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def check_images(images: Tensor, channels: tuple[int, ...] = (1, 3)) -> None:
    """Check a batch.

    Raises:
        TypeError: If it is not floating.
        ValueError: If it is not ``(B, C, H, W)`` with one of these numbers of channels and at least a pixel.
    """
    if not images.is_floating_point():
        raise TypeError(f"images must be floating in [0, 1], got {images.dtype}")
    if images.ndim != 4 or images.shape[1] not in channels or 0 in images.shape:
        wanted = " or ".join(map(str, channels))
        colour = "in colour, " if channels == (3,) else ""
        raise ValueError(f"images must be {colour}(B, {wanted}, H, W), got shape {tuple(images.shape)}")


def draw(count: int, low: float, high: float | None, generator: torch.Generator) -> Tensor:
    """Draw a level for each image, uniform in [``low``, ``high``]; ``low`` for all if ``high`` is ``None``.

    Returns:
        ``(count, 1, 1, 1)``, fp32, on the CPU. A generator is used in the same way with and without a range.
    """
    position = uniform((count, 1, 1, 1), generator)
    return torch.full_like(position, low) if high is None else low + (high - low) * position


def uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw from [0, 1), fp32, on the CPU."""
    return torch.rand(shape, generator=generator, device=generator.device).cpu()


def normal_like(images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw from the standard normal distribution: drawn where the generator is, put where the images are."""
    noise = torch.randn(images.shape, generator=generator, device=generator.device, dtype=torch.float32)
    return noise.to(images.device, images.dtype)
