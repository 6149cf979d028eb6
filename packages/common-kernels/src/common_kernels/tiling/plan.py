# SPDX-License-Identifier: Apache-2.0
"""Positions of the tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Box(NamedTuple):
    """A half-open rectangle, in pixels."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True, slots=True)
class TilePlan:
    """A grid of overlapping tiles that covers an image.

    Attributes:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        rows: Half-open spans of the tiles along the height, ascending.
        columns: Half-open spans of the tiles along the width, ascending.
    """

    height: int
    width: int
    rows: tuple[tuple[int, int], ...]
    columns: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def __iter__(self) -> Iterator[Box]:
        """Yield the boxes in raster order."""
        for top, bottom in self.rows:
            for left, right in self.columns:
                yield Box(top, left, bottom, right)

    def cut(self, image: Tensor, box: Box) -> Tensor:
        """Return the view of a box, ``(..., bottom - top, right - left)``.

        Args:
            image: ``(..., height, width)``.
            box: One of this plan's boxes.

        Raises:
            ValueError: If the image is not of the planned size.
        """
        if tuple(image.shape[-2:]) != (self.height, self.width):
            raise ValueError(
                f"image must be (..., {self.height}, {self.width}) for this plan, got {tuple(image.shape)}"
            )
        return image[..., box.top : box.bottom, box.left : box.right]

    def scaled(self, scale: int) -> TilePlan:
        """Return the plan of the output when every pixel becomes ``scale`` x ``scale``."""
        return TilePlan(
            self.height * scale,
            self.width * scale,
            tuple((a * scale, b * scale) for a, b in self.rows),
            tuple((a * scale, b * scale) for a, b in self.columns),
        )


def plan_tiles(
    height: int,
    width: int,
    *,
    tile: int | tuple[int, int],
    overlap: int | tuple[int, int] = 0,
    multiple: int = 1,
) -> TilePlan:
    """Cover an image with tiles of one size, the last of a row ending at the edge.

    Args:
        height: Height of the image in pixels, at least 1.
        width: Width of the image in pixels, at least 1.
        tile: Side of a tile, or (height, width), in pixels. A tile larger than the image shrinks to it.
        overlap: Pixels that neighbours share at least, less than the tile; one number or one per axis. A
            sliding window of stride ``s`` has overlap ``tile - s``.
        multiple: Tiles start at multiples of this, for networks with windows of their own; the last
            tile of an axis may then be up to ``multiple - 1`` pixels smaller than the others.

    Returns:
        The plan.

    Raises:
        ValueError: If a size is below 1, or the overlap or ``multiple`` leaves no way forward.

    Example:
        >>> plan_tiles(10, 6, tile=6, overlap=2).rows
        ((0, 6), (4, 10))
    """
    tiles = (tile, tile) if isinstance(tile, int) else tile
    overlaps = (overlap, overlap) if isinstance(overlap, int) else overlap
    if multiple < 1:
        raise ValueError(f"multiple must be at least 1, got {multiple}")
    rows = _plan_axis("height", height, tiles[0], overlaps[0], multiple)
    columns = _plan_axis("width", width, tiles[1], overlaps[1], multiple)
    return TilePlan(height, width, rows, columns)


def _plan_axis(name: str, size: int, tile: int, overlap: int, multiple: int) -> tuple[tuple[int, int], ...]:
    if size < 1 or tile < 1:
        raise ValueError(f"{name} and tile must be at least 1, got {name}={size} and {tile=}")
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap must lie in [0, tile), got {overlap=} and {tile=}")
    if tile >= size:
        return ((0, size),)
    stride = (tile - overlap) // multiple * multiple
    if stride == 0:
        raise ValueError(f"tile - overlap must be at least multiple, got {tile=}, {overlap=}, {multiple=}")
    last = math.ceil((size - tile) / multiple) * multiple
    starts = [*range(0, last, stride), last]
    return tuple((start, min(start + tile, size)) for start in starts)


def largest_tile(
    available_bytes: int, bytes_per_pixel: float, *, multiple: int = 1, minimum: int = 1, maximum: int = 4096
) -> int:
    """Return the side of the largest square tile whose working memory fits.

    Args:
        available_bytes: Memory that may be used.
        bytes_per_pixel: Peak working memory per pixel of the tile.
        multiple: The side is a multiple of this.
        minimum: Least side, even if it does not fit; rounded up to ``multiple``.
        maximum: Largest side; rounded down to ``multiple``.

    Raises:
        ValueError: If a number is not positive.
    """
    if min(bytes_per_pixel, multiple, minimum, maximum) <= 0:
        raise ValueError(
            f"all sizes must be positive, got {bytes_per_pixel=}, {multiple=}, {minimum=}, {maximum=}"
        )
    side = math.isqrt(max(0, int(available_bytes / bytes_per_pixel)))
    side = min(side, maximum) // multiple * multiple
    return max(side, math.ceil(minimum / multiple) * multiple)
