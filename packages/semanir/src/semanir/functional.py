# SPDX-License-Identifier: Apache-2.0
"""Windows, regions and position bias as pure tensor functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def window_partition(x: Tensor, window_size: int) -> Tensor:
    """Cut a feature map into windows.

    Args:
        x: ``(B, C, H, W)``; both sides multiples of ``window_size``.
        window_size: Side ``M`` of a window.

    Returns:
        ``(B * H/M * W/M, M * M, C)``, the windows of an image in raster order.
    """
    M = window_size
    x = x.unflatten(3, (-1, M)).unflatten(2, (-1, M))  # (B, C, H/M, M, W/M, M)
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(0, 2)  # (B * windows, M * M, C)


def window_reverse(windows: Tensor, window_size: int, height: int, width: int) -> Tensor:
    """Put windows back: the inverse of :func:`window_partition`.

    Args:
        windows: ``(B * windows, M * M, C)``.
        window_size: Side ``M`` of a window.
        height: ``H`` of the map, in tokens.
        width: ``W`` of the map, in tokens.

    Returns:
        ``(B, C, H, W)``, in channels-last memory order.
    """
    M, rows, columns = window_size, height // window_size, width // window_size
    x = windows.unflatten(1, (M, M)).unflatten(0, (-1, rows, columns))  # (B, rows, columns, M, M, C)
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, windows.shape[-1])  # (B, H, W, C)
    return x.permute(0, 3, 1, 2)


def window_regions(
    height: int, width: int, window_size: int, shift: int, device: torch.device | None = None
) -> Tensor:
    """Label the tokens of a map rolled by ``shift`` so that none pairs across the seam.

    Args:
        height: ``H`` of the map, in tokens.
        width: ``W`` of the map, in tokens.
        window_size: Side ``M`` of a window.
        shift: Tokens by which the map was rolled up and left, in ``(0, M)``.
        device: Where to put the labels.

    Returns:
        ``(H/M * W/M, M * M)``, int64. Tokens of a window that were neighbours before the roll share a label.
    """
    row = (torch.arange(height, device=device) >= height - shift).long()
    column = (torch.arange(width, device=device) >= width - shift).long()
    labels = 2 * row[:, None] + column[None, :]  # (H, W)
    return window_partition(labels[None, None], window_size)[..., 0]


def relative_coordinates(window_size: int, device: torch.device | None = None) -> Tensor:
    """Return the log-spaced offsets of a window, ``((2M - 1) ** 2, 2)``, fp32, about in [-1, 1].

    Source: Swin Transformer V2, arXiv 2111.09883, Eq. 3-4.
    """
    M = window_size
    offsets = torch.arange(1 - M, M, device=device, dtype=torch.float32) * (8 / max(M - 1, 1))
    offsets = offsets.sign() * torch.log2(1 + offsets.abs()) / math.log2(8)
    return torch.cartesian_prod(offsets, offsets)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Extend an image at the right and at the bottom until both sides are multiples.

    Args:
        x: ``(B, C, H, W)``, any size from 1x1.
        multiple: Pixels.

    Returns:
        ``(B, C, H', W')``: mirrored as far as the image reaches, then its last row or column repeated.
    """
    for axis in (-1, -2):
        missing = -x.shape[axis] % multiple
        mirrored = min(missing, x.shape[axis] - 1)
        for amount, mode in ((mirrored, "reflect"), (missing - mirrored, "replicate")):
            if amount:
                x = F.pad(x, (0, amount, 0, 0) if axis == -1 else (0, 0, 0, amount), mode=mode)
    return x


def enlarge_bicubic(x: Tensor, scale: int) -> Tensor:
    """Enlarge by Keys' cubic kernel, a = -0.5, as one convolution; the border is repeated.

    Args:
        x: ``(B, C, H, W)``.
        scale: Output over input side.

    Returns:
        ``(B, C, scale * H, scale * W)``; away from the border that of MATLAB's imresize.

    Source: Keys, IEEE TASSP 1981, Eq. 15.
    """
    offset = (torch.arange(scale, dtype=x.dtype, device=x.device) + 0.5) / scale - 0.5  # of each new pixel
    distance = (offset[:, None] - torch.arange(-2, 3, dtype=x.dtype, device=x.device)).abs()  # (scale, 5)
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    taps = torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))
    kernels = (taps[:, None, :, None] * taps[None, :, None, :]).flatten(0, 1)[
        :, None
    ]  # (scale ** 2, 1, 5, 5)
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    y = F.conv2d(padded, kernels.repeat(x.shape[1], 1, 1, 1), groups=x.shape[1])
    return F.pixel_shuffle(y, scale)
