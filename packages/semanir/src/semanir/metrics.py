# SPDX-License-Identifier: Apache-2.0
"""Fidelity of a restored image, by the definitions that published tables rest on."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

SSIMMode = Literal["matlab", "grl"]

_WINDOW, _SIGMA = 11, 1.5
_BLOCK = 8  # pixels of JPEG's squares
_LUMA = (65.481, 128.553, 24.966)


def psnr(image: Tensor, target: Tensor, *, data_range: float = 1.0) -> Tensor:
    """Return the peak signal-to-noise ratio over all elements, in dB; infinite for equal images.

    Args:
        image: Any shape.
        target: Same shape as ``image``.
        data_range: Largest possible value minus smallest.

    Returns:
        A scalar tensor, fp32 (fp64 for fp64 input).

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import torch
        >>> psnr(torch.zeros(4), torch.full((4,), 0.1))
        tensor(20.)
    """
    if image.shape != target.shape:
        raise ValueError(f"image and target must have one shape, got {image.shape} and {target.shape}")
    error = (image - target) if image.is_floating_point() else (image.float() - target.float())
    return 10 * (data_range**2 / error.square().mean()).log10()


def ssim(image: Tensor, target: Tensor, *, mode: SSIMMode = "matlab", data_range: float = 1.0) -> Tensor:
    """Return the structural similarity, the mean over channels.

    Args:
        image: ``(C, H, W)``.
        target: Same shape as ``image``.
        mode: ``"matlab"``: float64, where the window fits ("valid"), as KAIR and BasicSR compute it;
            ``"grl"``: float32, zeros around the image ("same"), as GRL does, whose values are higher and do
            not compare with the former.
        data_range: Largest possible value minus smallest.

    Returns:
        A scalar tensor.

    Raises:
        ValueError: If the shapes differ, or the image is smaller than the window of 11 pixels.

    Source: Wang et al., IEEE TIP 2004, Eq. 13, with a Gaussian window of deviation 1.5.
    """
    if image.shape != target.shape or image.ndim != 3:
        raise ValueError(f"image and target must be (C, H, W), got {image.shape} and {target.shape}")
    if min(image.shape[-2:]) < _WINDOW:
        raise ValueError(f"SSIM needs {_WINDOW} x {_WINDOW} pixels, got {tuple(image.shape[-2:])}")
    dtype = torch.float64 if mode == "matlab" else torch.float32
    x, y = image.to(dtype)[:, None], target.to(dtype)[:, None]
    position = torch.arange(_WINDOW, dtype=dtype, device=x.device) - _WINDOW // 2
    weight = torch.exp(-(position**2) / (2 * _SIGMA**2))
    window = torch.outer(weight, weight) / weight.sum() ** 2
    padding = 0 if mode == "matlab" else _WINDOW // 2

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(values, window[None, None], padding=padding)

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return (similarity / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean()


def psnr_b(image: Tensor, target: Tensor, *, data_range: float = 1.0) -> Tensor:
    """Return the PSNR that counts steps across the blocks of JPEG as error, the mean over channels, in dB.

    Args:
        image: ``(C, H, W)``, its blocks aligned with its corner.
        target: Same shape as ``image``.
        data_range: Largest possible value minus smallest.

    Returns:
        A scalar tensor; infinite where ``image`` equals ``target`` and has no steps.

    Raises:
        ValueError: If the shapes differ, or a side is below 2 pixels.

    Source: Yim and Bovik, IEEE TIP 2011, Eq. 5-9; the counts are those of the pairs that there are.
    """
    if image.shape != target.shape or image.ndim != 3 or min(image.shape[-2:]) < 2:
        raise ValueError(f"image and target must be (C, H, W), got {image.shape} and {target.shape}")
    error = (image - target).square().mean(dim=(-2, -1)) + _blocking_effect(image)  # (C,)
    return (10 * (data_range**2 / error).log10()).mean()


def _blocking_effect(image: Tensor) -> Tensor:
    """Return by how much squared steps across blocks exceed those inside, weighted by the size, ``(C,)``."""
    across = image.new_zeros(len(image))
    inside, num_across, num_inside = across.clone(), 0, 0
    for axis in (-1, -2):
        steps = image.diff(dim=axis).square().sum(dim=-2 if axis == -1 else -1)  # (C, pairs along the axis)
        at_border = torch.arange(steps.shape[-1], device=image.device) % _BLOCK == _BLOCK - 1
        lines = image.shape[-2 if axis == -1 else -1]
        across, inside = across + steps[:, at_border].sum(-1), inside + steps[:, ~at_border].sum(-1)
        count = int(at_border.sum())
        num_across, num_inside = num_across + count * lines, num_inside + (len(at_border) - count) * lines
    weight = math.log2(_BLOCK) / math.log2(min(image.shape[-2:]))
    return weight * (across / max(1, num_across) - inside / max(1, num_inside)).clamp(min=0)


def rgb_to_y(image: Tensor) -> Tensor:
    """Return MATLAB's luma, not rounded: ``(1, H, W)`` in [16/255, 235/255], of ``(3, H, W)`` in [0, 1].

    Source: ITU-R BT.601, the numbers of MATLAB's rgb2ycbcr.
    """
    weight = torch.tensor(_LUMA, dtype=image.dtype, device=image.device).view(3, 1, 1)
    return ((image * weight).sum(dim=-3, keepdim=True) + 16) / 255
