# SPDX-License-Identifier: Apache-2.0
"""How overlapping tiles become one image again.

The tiles form a grid, so the weight of a pixel in a tile is a product of a row and a column weight, and
both are normalised beforehand: every output pixel is a weighted mean, without a second accumulator.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from common_kernels.tiling.plan import TilePlan

Blend = Literal["raised_cosine", "uniform"]


def axis_weights(spans: Sequence[tuple[int, int]], size: int, blend: Blend = "raised_cosine") -> list[Tensor]:
    """Return the weight of every pixel in every tile along one axis; they sum to one at each pixel.

    Args:
        spans: Half-open spans that cover ``[0, size)``, ascending.
        size: Length of the axis, in pixels.
        blend: ``"uniform"`` divides by the number of tiles that see a pixel; ``"raised_cosine"`` also
            fades each tile in and out across what it shares with its neighbours.

    Returns:
        One fp64 vector per span.

    Raises:
        ValueError: If ``blend`` is unknown or the spans leave a gap.
    """
    if blend not in ("raised_cosine", "uniform"):
        raise ValueError(f"blend must be 'raised_cosine' or 'uniform', got {blend!r}")
    weights: list[Tensor] = []
    for number, (start, stop) in enumerate(spans):
        weight = torch.ones(stop - start, dtype=torch.float64)
        if blend == "raised_cosine":
            before = spans[number - 1][1] - start if number else 0
            after = stop - spans[number + 1][0] if number + 1 < len(spans) else 0
            weight *= _fade_in(before, stop - start)
            weight *= _fade_in(after, stop - start).flip(0)
        weights.append(weight)
    total = torch.zeros(size, dtype=torch.float64)
    for (start, stop), weight in zip(spans, weights, strict=True):
        total[start:stop] += weight
    if not bool((total > 0).all()):
        raise ValueError(f"the spans {tuple(spans)} leave a gap in [0, {size})")
    return [weight / total[start:stop] for (start, stop), weight in zip(spans, weights, strict=True)]


def _fade_in(overlap: int, length: int) -> Tensor:
    """Return a half cosine from near 0 to 1 over ``overlap`` pixels, then ones; never exactly 0."""
    position = torch.arange(length, dtype=torch.float64) + 0.5
    return torch.sin((position / max(overlap, 1)).clamp(max=1) * (math.pi / 2)).square()


def stream_tiles(
    plan: TilePlan, tiles: Iterable[Tensor], *, blend: Blend = "raised_cosine"
) -> Iterator[tuple[int, Tensor]]:
    """Blend tiles as they come and yield the rows that no later tile can change.

    Only one row of tiles is held, so a gigapixel output needs memory for a band of it.

    Args:
        plan: Positions of the tiles in the output.
        tiles: One ``(..., tile_height, tile_width)`` per box of the plan, in its order, on any device.
        blend: Kind of weights, see :func:`axis_weights`.

    Yields:
        ``(top, band)``: the first row and ``(..., rows, width)``, fp32 (fp64 for fp64 tiles) on the CPU, from
        the top down.

    Raises:
        ValueError: If there are too few or too many tiles, or one has the wrong size.
    """
    row_weights = axis_weights(plan.rows, plan.height, blend)
    column_weights = axis_weights(plan.columns, plan.width, blend)
    source = iter(tiles)
    band: Tensor | None = None
    band_top = 0
    for row, (top, bottom) in enumerate(plan.rows):
        for column, (left, right) in enumerate(plan.columns):
            tile = _next_tile(
                source, (bottom - top, right - left), row * len(plan.columns) + column, len(plan)
            )
            if band is None:
                band = tile.new_zeros((*tile.shape[:-2], bottom - band_top, plan.width))
            elif band.shape[-2] < bottom - band_top:
                grown = tile.new_zeros((*band.shape[:-2], bottom - band_top, plan.width))
                grown[..., : band.shape[-2], :] = band
                band = grown
            weight = (row_weights[row][:, None] * column_weights[column]).to(tile.dtype)
            band[..., top - band_top : bottom - band_top, left:right] += tile * weight
        done = plan.rows[row + 1][0] if row + 1 < len(plan.rows) else plan.height
        if band is not None and done > band_top:
            yield band_top, band[..., : done - band_top, :].clone()
            band, band_top = band[..., done - band_top :, :].clone(), done
    if next(source, None) is not None:
        raise ValueError(f"the plan has {len(plan)} tiles, got more")


def _next_tile(source: Iterator[Tensor], size: tuple[int, int], number: int, count: int) -> Tensor:
    tile = next(source, None)
    if tile is None:
        raise ValueError(f"the plan has {count} tiles, got {number}")
    if tuple(tile.shape[-2:]) != size:
        raise ValueError(f"tile {number} must be (..., {size[0]}, {size[1]}), got {tuple(tile.shape)}")
    wide = torch.float64 if tile.dtype == torch.float64 else torch.float32
    return tile.detach().to("cpu", wide)


def blend_tiles(plan: TilePlan, tiles: Iterable[Tensor], *, blend: Blend = "raised_cosine") -> Tensor:
    """Blend all tiles into one image, ``(..., height, width)``, fp32 (fp64 for fp64 tiles) on the CPU.

    Args:
        plan: Positions of the tiles in the output.
        tiles: One per box of the plan, in its order.
        blend: Kind of weights, see :func:`axis_weights`.

    Raises:
        ValueError: As :func:`stream_tiles`.
    """
    return torch.cat([band for _, band in stream_tiles(plan, tiles, blend=blend)], dim=-2)
