# SPDX-License-Identifier: Apache-2.0
"""The checkerboard that mixes two images pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor


def chess_mask(
    height: int,
    width: int,
    *,
    shift: int | tuple[int, int] = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.bool,
) -> Tensor:
    """Return a checkerboard of single pixels.

    Args:
        height: Rows, at least 1.
        width: Columns, at least 1.
        shift: Pixels by which the board moves, one number or one per axis; only its parity matters.
        device: Device of the result.
        dtype: Dtype of the result; 1 stands for true.

    Returns:
        ``(height, width)``, true where row + column + shift is even.

    Raises:
        ValueError: If a side is below 1.

    Example:
        >>> chess_mask(2, 3, dtype=torch.int64)
        tensor([[1, 0, 1],
                [0, 1, 0]])

    Source: Pixelsmith, arXiv 2406.07251, Sec. 3 (masking), with the random shift left to the caller.
    """
    if height < 1 or width < 1:
        raise ValueError(f"height and width must be at least 1, got {height=} and {width=}")
    total = shift if isinstance(shift, int) else sum(shift)
    rows = torch.arange(height, device=device).unsqueeze(1)
    columns = torch.arange(width, device=device)
    return ((rows + columns + total) % 2 == 0).to(dtype)
