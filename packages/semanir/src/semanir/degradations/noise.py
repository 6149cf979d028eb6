# SPDX-License-Identifier: Apache-2.0
"""Noise: white, of a camera, and correlated between neighbours."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from semanir.degradations.drawing import check_images, normal_like


def add_gaussian_noise(images: Tensor, sigma: float | Tensor, generator: torch.Generator) -> Tensor:
    """Add white Gaussian noise; nothing is clipped or rounded, as the published protocols ask.

    Args:
        images: ``(B, C, H, W)`` in [0, 1].
        sigma: Standard deviation on the scale of [0, 255]; a number, or ``(B, 1, 1, 1)``.
        generator: Source of the noise.

    Returns:
        Shape, dtype and device of ``images``.
    """
    check_images(images)
    return images + normal_like(images, generator) * (_as(sigma, images) / 255)


def add_correlated_noise(
    images: Tensor, sigma: float | Tensor, radius: float | Tensor, generator: torch.Generator
) -> Tensor:
    """Add Gaussian noise whose neighbours are alike, as after demosaicking or resizing.

    Args:
        images: ``(B, C, H, W)`` in [0, 1].
        sigma: Standard deviation on the scale of [0, 255]; a number, or ``(B, 1, 1, 1)``.
        radius: Standard deviation of the smoothing in pixels; a number, or ``(B, 1, 1, 1)``; 0 is white.
        generator: Source of the noise.

    Returns:
        Shape, dtype and device of ``images``, not clipped. The deviation is ``sigma`` whatever the radius.
    """
    check_images(images)
    radii = _as(radius, images).expand(len(images), 1, 1, 1).flatten().tolist()
    reach = max(1, round(3 * max(radii)))
    B, C, H, W = images.shape
    white = images.new_empty(B, C, H + 2 * reach, W + 2 * reach)
    white = normal_like(white, generator)
    smooth = torch.stack([_smooth(each, r, reach) for each, r in zip(white, radii, strict=True)])
    return images + smooth * (_as(sigma, images) / 255)


def _smooth(white: Tensor, radius: float, reach: int) -> Tensor:
    """Smooth ``(C, H, W)`` noise to a smaller map of unit deviation."""
    position = torch.arange(-reach, reach + 1, dtype=white.dtype, device=white.device)
    weight = torch.exp(-0.5 * (position / radius).square()) if radius > 0 else (position == 0).to(white)
    weight = weight / weight.square().sum().sqrt()
    columns = F.conv2d(white[:, None], weight.view(1, 1, -1, 1))
    return F.conv2d(columns, weight.view(1, 1, 1, -1))[:, 0]


def add_camera_noise(
    images: Tensor,
    shot: float | Tensor,
    read: float | Tensor,
    generator: torch.Generator,
    *,
    gamma: float = 2.2,
    mosaicked: bool = False,
) -> Tensor:
    """Add the noise of a camera: photons that are counted, and an amplifier.

    In linear light, ``y = shot * Poisson(x / shot) + Normal(0, read)``, so that the variance is
    ``shot * x + read ** 2``.

    Args:
        images: ``(B, C, H, W)`` in [0, 1]; values outside are clipped, as no sensor has them.
        shot: Variance per unit of light, on the scale of [0, 1]: one over the electrons of white; a number,
            or ``(B, 1, 1, 1)``; 0 counts no photons.
        read: Standard deviation of the amplifier, on the scale of [0, 255]; a number, or ``(B, 1, 1, 1)``.
        generator: Source of the noise.
        gamma: Exponent that turns the images into linear light; 1 if they are linear.
        mosaicked: Whether a pixel measures one colour only, of a Bayer pattern, and the others are
            interpolated, which makes the noise of neighbours alike. Three channels are needed.

    Returns:
        Shape, dtype and device of ``images``; at least 0, not clipped at 1.

    Source: the model of Foi et al., IEEE TIP 2008, Eq. 1, and Brooks et al., arXiv 1811.11127, Sec. 3.2.
    """
    from semanir.degradations.mosaic import demosaic_malvar, mosaic

    check_images(images)
    light = images.clamp(0, 1).pow(gamma)
    light = mosaic(light) if mosaicked else light
    gain = _as(shot, images)
    photons = light / gain.clamp(min=torch.finfo(torch.float32).tiny)
    # far above any count that matters, and where float32 stops counting singly
    counted = torch.poisson(photons.clamp(max=2.0**24).to(generator.device), generator=generator).to(light)
    noisy = torch.where(gain > 0, counted * gain, light)
    noisy = noisy + normal_like(light, generator) * (_as(read, images) / 255)
    noisy = demosaic_malvar(noisy) if mosaicked else noisy
    return noisy.clamp(min=0).pow(1 / gamma)


def _as(value: float | Tensor, images: Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=images.dtype, device=images.device)
