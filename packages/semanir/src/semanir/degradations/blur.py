# SPDX-License-Identifier: Apache-2.0
"""The blur of a camera that moves while its shutter is open."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from semanir.degradations.drawing import check_images, uniform

_POINTS = 64  # of a path: more than pixels on it


def motion_kernels(
    length: Tensor, generator: torch.Generator, *, curvature: float = 0.0, angle: Tensor | None = None
) -> Tensor:
    """Draw the paths of a moving camera.

    Args:
        length: Length of each path in pixels, ``(B,)``, at least 1.
        generator: Source of directions and turns.
        curvature: Standard deviation of the turn from beginning to end, in radians; 0 is a straight line.
        angle: Direction at the beginning in radians, 0 to the right and ``pi / 2`` down, ``(B,)``; any if
            ``None``.

    Returns:
        ``(B, 1, K, K)``, fp32, at least 0, each of sum 1 and centred; ``K`` odd, the same for all.
    """
    count = len(length)
    drawn = uniform((count,), generator) * 2 * math.pi
    start = drawn if angle is None else angle
    turns = torch.randn((count, _POINTS), generator=generator, device=generator.device).cpu()
    direction = start[:, None] + (turns * curvature / math.sqrt(_POINTS)).cumsum(dim=1)
    step = ((length - 1).clamp(min=0) / (_POINTS - 1))[:, None]
    path = torch.stack([direction.sin() * step, direction.cos() * step]).cumsum(dim=-1)  # (2, B, points)
    path = path - path.mean(dim=-1, keepdim=True)
    half = max(1, math.ceil(float(path.abs().max()) + 0.5))
    return _draw_paths(path + half, 2 * half + 1)


def _draw_paths(path: Tensor, size: int) -> Tensor:
    """Spread each point of ``(2, B, points)`` over the four pixels around it."""
    corner, part = path.floor().long(), path - path.floor()
    kernels = torch.zeros(path.shape[1], size * size)
    for down in (0, 1):
        for right in (0, 1):
            weight = (part[0] if down else 1 - part[0]) * (part[1] if right else 1 - part[1])
            row, column = (corner[0] + down).clamp(max=size - 1), (corner[1] + right).clamp(max=size - 1)
            kernels.scatter_add_(1, row * size + column, weight)
    kernels = kernels / kernels.sum(dim=1, keepdim=True)
    return kernels.view(-1, 1, size, size)


def blur(images: Tensor, kernels: Tensor, *, gamma: float = 1.0) -> Tensor:
    """Blur each image with its own kernel; edges are repeated.

    Args:
        images: ``(B, C, H, W)`` in [0, 1].
        kernels: ``(B, 1, K, K)``, ``K`` odd.
        gamma: Exponent that turns the images into linear light, in which light adds up; 1 if they are.

    Returns:
        Shape, dtype and device of ``images``.

    Raises:
        ValueError: If kernels and images do not fit.
    """
    check_images(images)
    B, C = images.shape[:2]
    if kernels.shape[:2] != (B, 1) or kernels.shape[-1] % 2 == 0 or kernels.shape[-2] != kernels.shape[-1]:
        raise ValueError(f"kernels must be ({B}, 1, K, K) with odd K, got {tuple(kernels.shape)}")
    half = kernels.shape[-1] // 2
    light = images if gamma == 1 else images.clamp(min=0).pow(gamma)
    padded = F.pad(light, (half,) * 4, mode="replicate").flatten(0, 1)[None]  # (1, B * C, ...)
    weight = kernels.to(images).repeat_interleave(C, dim=0)
    y = F.conv2d(padded, weight, groups=B * C)[0].unflatten(0, (B, C))
    return y if gamma == 1 else y.clamp(min=0).pow(1 / gamma)
