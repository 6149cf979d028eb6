# SPDX-License-Identifier: Apache-2.0
"""The chess mask of a patch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from common_kernels import chess_mask
from torch import Tensor

__all__ = ["chess_masks"]


def chess_masks(
    height: int, width: int, coins: Sequence[tuple[int, int]], device: torch.device | str = "cpu"
) -> Tensor:
    """Return the positions that take the guidance, half of all positions.

    Args:
        height: Height of a patch.
        width: Width of a patch.
        coins: Two coins per patch, a shift by one column and a shift by one row; both together cancel.
        device: Device of the masks.

    Returns:
        ``(B, 1, height, width)`` bool; true where row + column + both coins is even.

    Source: Pixelsmith, arXiv 2406.07251, Sec. 3 (masking).
    """
    boards = [chess_mask(height, width, shift=shift, device=device) for shift in (0, 1)]
    return torch.stack([boards[(left + down) % 2] for left, down in coins]).unsqueeze(1)
