# SPDX-License-Identifier: Apache-2.0
"""Run a function over the tiles of an image that stays where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby

import torch
from torch import Tensor

from common_kernels.tiling.blend import Blend, blend_tiles
from common_kernels.tiling.plan import Box, TilePlan


def map_tiles(
    function: Callable[[Tensor], Tensor],
    image: Tensor,
    plan: TilePlan,
    *,
    batch_size: int = 1,
    scale: int = 1,
    blend: Blend = "raised_cosine",
    device: torch.device | str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """Apply a function to every tile and blend the results.

    Args:
        function: Maps ``(b, C, h, w)`` to ``(b, C', scale * h, scale * w)``.
        image: ``(C, H, W)``, on any device; only tiles of it move.
        plan: Tiles of the input, for ``(H, W)``.
        batch_size: Tiles of equal size that go to the function together.
        scale: Output pixels per input pixel and side.
        blend: Kind of weights, see :func:`common_kernels.tiling.axis_weights`.
        device: Device that the tiles are moved to first; the image's own if ``None``.
        progress: Called with the number of tiles finished since the last call.

    Returns:
        ``(C', scale * H, scale * W)``, fp32 (fp64 for fp64 tiles), on the CPU.

    Raises:
        ValueError: If the image or a result does not fit the plan, or ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")

    def results() -> Iterator[Tensor]:
        for boxes in _batches(plan, batch_size):
            batch = torch.stack([plan.cut(image, box) for box in boxes]).to(device or image.device)
            yield from function(batch)
            if progress is not None:
                progress(len(boxes))

    return blend_tiles(plan.scaled(scale), results(), blend=blend)


def _batches(plan: TilePlan, batch_size: int) -> Iterator[list[Box]]:
    """Group neighbours of equal size, in raster order, into batches."""
    for _, run in groupby(plan, key=lambda box: (box.bottom - box.top, box.right - box.left)):
        boxes = list(run)
        for start in range(0, len(boxes), batch_size):
            yield boxes[start : start + batch_size]
