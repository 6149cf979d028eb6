# SPDX-License-Identifier: Apache-2.0
"""The Bayer pattern of a sensor, and the linear interpolation that undoes it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from semanir.degradations.drawing import check_images

# Malvar et al., Fig. 2, in eighths
_GREEN = ((0, 0, -1, 0, 0), (0, 0, 2, 0, 0), (-1, 2, 4, 2, -1), (0, 0, 2, 0, 0), (0, 0, -1, 0, 0))
_ALONG_ROW = (
    (0, 0, 0.5, 0, 0),
    (0, -1, 0, -1, 0),
    (-1, 4, 5, 4, -1),
    (0, -1, 0, -1, 0),
    (0, 0, 0.5, 0, 0),
)
_ACROSS = (
    (0, 0, -1.5, 0, 0),
    (0, 2, 0, 2, 0),
    (-1.5, 0, 6, 0, -1.5),
    (0, 2, 0, 2, 0),
    (0, 0, -1.5, 0, 0),
)


def mosaic(images: Tensor) -> Tensor:
    """Keep one colour per pixel: red at even rows and columns, blue at odd ones, else green (RGGB).

    Args:
        images: ``(B, 3, H, W)``.

    Returns:
        ``(B, 1, H, W)``.
    """
    check_images(images, (3,))
    result = images[:, 1:2].clone()
    result[..., ::2, ::2] = images[:, :1, ::2, ::2]
    result[..., 1::2, 1::2] = images[:, 2:, 1::2, 1::2]
    return result


def demosaic_malvar(raw: Tensor) -> Tensor:
    """Interpolate an RGGB mosaic linearly, as MATLAB's demosaic does.

    Args:
        raw: ``(B, 1, H, W)``; mirrored at its edges, about the last pixel, which keeps the pattern.

    Returns:
        ``(B, 3, H, W)``, not clipped; measured values stay as they are.

    Source: Malvar, He and Cutler, ICASSP 2004, Fig. 2.
    """
    check_images(raw, (1,))
    along = torch.tensor(_ALONG_ROW)
    kernels = torch.stack([torch.tensor(_GREEN), along, along.T, torch.tensor(_ACROSS)])[:, None] / 8
    green, row, column, across = F.conv2d(_mirror(raw), kernels.to(raw)).split(1, dim=1)
    result = raw.repeat(1, 3, 1, 1)
    red_row, blue_row = slice(0, None, 2), slice(1, None, 2)
    result[:, 1:2, red_row, ::2] = green[..., red_row, ::2]
    result[:, 1:2, blue_row, 1::2] = green[..., blue_row, 1::2]
    for channel, own, other in ((0, 0, 1), (2, 1, 0)):
        result[:, channel, own::2, other::2] = row[:, 0, own::2, other::2]
        result[:, channel, other::2, own::2] = column[:, 0, other::2, own::2]
        result[:, channel, other::2, other::2] = across[:, 0, other::2, other::2]
    return result


def _mirror(raw: Tensor) -> Tensor:
    """Add two pixels on every side; mirroring about the last pixel keeps the parity of rows and columns."""
    for axis in (-2, -1):
        size = raw.shape[axis]
        # a period of 2 * (size - 1) is even, so a colour meets its own kind even where it repeats
        position = torch.arange(-2, size + 2, device=raw.device).remainder(max(1, 2 * (size - 1)))
        raw = raw.index_select(axis, torch.minimum(position, (2 * (size - 1) - position).abs()))
    return raw
