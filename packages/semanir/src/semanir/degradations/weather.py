# SPDX-License-Identifier: Apache-2.0
"""Simple renderings of rain, snow and drops on the lens; ours, for training without rendered data sets."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from semanir.degradations.blur import blur, motion_kernels
from semanir.degradations.drawing import check_images, uniform

_SLANT = math.pi / 8  # largest slant of rain from the vertical


def add_rain(
    images: Tensor, density: Tensor, length: Tensor, generator: torch.Generator, *, veil: float = 0.1
) -> Tensor:
    """Draw streaks of light, and the haze of the rain behind them.

    Args:
        images: ``(B, C, H, W)`` in [0, 1].
        density: Streaks per thousand pixels, ``(B, 1, 1, 1)``.
        length: Length of a streak in pixels, ``(B, 1, 1, 1)``.
        generator: Source of places, slant and strength.
        veil: Share of the light that the haze replaces, in [0, 1].

    Returns:
        Shape, dtype and device of ``images``, in [0, 1].
    """
    check_images(images)
    B, _, H, W = images.shape
    slant = math.pi / 2 + (2 * uniform((B,), generator) - 1) * _SLANT
    kernels = motion_kernels(length.flatten().clamp(min=1), generator, angle=slant)
    place = uniform((B, 1, H, W), generator) < density / 1000
    strength = 0.3 + 0.7 * uniform((B, 1, H, W), generator)
    streaks = blur(place * strength, kernels)
    # a kernel of sum 1 dims a streak by its length; its brightest pixel shall stand out at any
    streaks = (0.6 * streaks / kernels.amax(dim=(-2, -1), keepdim=True)).clamp(0, 0.8).to(images)
    hazy = images.clamp(0, 1) * (1 - veil) + 0.7 * veil
    return 1 - (1 - hazy) * (1 - streaks)


def add_snow(images: Tensor, density: Tensor, size: Tensor, generator: torch.Generator) -> Tensor:
    """Draw flakes of three sizes, the larger ones nearer and fewer.

    Args:
        images: ``(B, C, H, W)`` in [0, 1].
        density: Flakes per thousand pixels, ``(B, 1, 1, 1)``.
        size: Diameter of the largest flakes in pixels, ``(B, 1, 1, 1)``.
        generator: Source of places and strength.

    Returns:
        Shape, dtype and device of ``images``, in [0, 1].
    """
    check_images(images)
    B, _, H, W = images.shape
    y = images.clamp(0, 1)
    for share, part in ((0.6, 0.35), (0.3, 0.65), (0.1, 1.0)):
        place = uniform((B, 1, H, W), generator) < density * share / 1000
        strength = 0.5 + 0.5 * uniform((B, 1, H, W), generator)
        flakes = blur(place * strength, _discs((size * part / 2).flatten()))
        cover = flakes.clamp(0, 0.95).to(images)
        y = y * (1 - cover) + cover
    return y


def _discs(radius: Tensor) -> Tensor:
    """Return soft discs of height 1, ``(B, 1, K, K)``."""
    half = max(1, math.ceil(float(radius.max()) + 1))
    position = torch.arange(-half, half + 1, dtype=torch.float32)
    distance = torch.hypot(position[:, None], position)
    return torch.sigmoid((radius.view(-1, 1, 1, 1) - distance) * 3)


def add_raindrops(images: Tensor, count: Tensor, size: Tensor, generator: torch.Generator) -> Tensor:
    """Put drops on the lens: each shows the scene small, upside down and out of focus.

    Args:
        images: ``(B, C, H, W)`` in [0, 1].
        count: Number of drops, ``(B, 1, 1, 1)``; rounded.
        size: Diameter of the largest drops, as a share of the shorter side, ``(B, 1, 1, 1)``.
        generator: Source of places and sizes.

    Returns:
        Shape, dtype and device of ``images``, in [0, 1].
    """
    check_images(images)
    B, _, H, W = images.shape
    y = images.clamp(0, 1)
    row = torch.arange(H, device=images.device, dtype=torch.float32)[:, None]
    column = torch.arange(W, device=images.device, dtype=torch.float32)
    for number in range(round(float(count.max()))):
        drawn = uniform((B, 4), generator).to(images.device)
        radius = size.view(B).to(images.device) * min(H, W) / 2 * (0.3 + 0.7 * drawn[:, 2])
        down = (row - (drawn[:, 0] * H).view(-1, 1, 1)).expand(B, H, W)
        right = (column - (drawn[:, 1] * W).view(-1, 1, 1)).expand(B, H, W)
        shape = 0.8 + 0.4 * drawn[:, 3].view(-1, 1, 1)  # drops are no circles
        distance = torch.hypot(down / shape, right) / radius.clamp(min=0.5).view(-1, 1, 1)
        present = (number < count.round()).to(images)
        cover = (torch.sigmoid((1 - distance) * 8)[:, None] * present).to(images)
        y = y * (1 - cover) + cover * _lens(y, down, right)
    return y


def _lens(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Return the scene as a drop around the origin of ``down`` and ``right`` refracts it."""
    H, W = images.shape[-2:]
    row = torch.arange(H, device=images.device)[:, None] - 4 * down
    column = torch.arange(W, device=images.device) - 4 * right
    grid = torch.stack([2 * column / max(W - 1, 1) - 1, 2 * row / max(H - 1, 1) - 1], dim=-1)
    soft = F.avg_pool2d(F.pad(images, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    seen = F.grid_sample(soft, grid.to(images.dtype), padding_mode="reflection", align_corners=True)
    return 0.15 + 0.8 * seen
