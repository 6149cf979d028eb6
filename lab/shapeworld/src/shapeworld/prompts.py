# SPDX-License-Identifier: Apache-2.0
"""What a hand would draw to point at a thing: a scribble, a few points, a loose box.

All start from a mask and a generator, so the same two give the same prompt. Coordinates are pixels, x then y,
measured from the outer edge of the image: pixel ``(row, column)`` covers ``column <= x < column + 1`` and
its centre is at ``column + 0.5``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bool = NDArray[np.bool_]
Float = NDArray[np.float64]

_HEADINGS = 12  # directions tried before a stroke is made shorter
_SHORTEST = 0.5  # pixels; a stroke that must be shorter ends the scribble
_SAMPLES = 4  # of a stroke, per pixel of its length


@dataclass(frozen=True, slots=True)
class Scribble:
    """A line drawn inside a mask.

    Attributes:
        points: Corners of the line, ``(P, 2)`` float64, pixels, x then y; ``P >= 1``.
        mask: The drawn line, ``(H, W)`` bool, a part of the mask it was drawn in.
    """

    points: Float
    mask: Bool


@dataclass(frozen=True, slots=True)
class Points:
    """Points that say what is meant and what is not.

    Attributes:
        xy: ``(P, 2)`` float64, centres of pixels, x then y.
        labels: ``(P,)`` int64, 1 inside the mask and 0 outside, the ones first.
    """

    xy: Float
    labels: NDArray[np.int64]


def scribble(mask: Bool, rng: np.random.Generator, *, strokes: int = 8, width: float = 2.0) -> Scribble:
    """Draw a wandering line that stays inside a mask.

    The line starts well inside, keeps its direction where it can and turns where the mask ends, so that it
    follows rings and crescents round their holes. A mask of one pixel gives a dot.

    Args:
        mask: ``(H, W)`` bool, at least one pixel.
        rng: Random generator.
        strokes: Maximum number of straight segments, at least 1.
        width: Width of the line in pixels, at least 1.

    Returns:
        The line as points, and as pixels.

    Raises:
        ValueError: If the mask is empty or not two-dimensional, or a number is out of range.
    """
    depth = _depth(mask)
    if strokes < 1:
        raise ValueError(f"strokes must be at least 1, got {strokes}")
    if width < 1:
        raise ValueError(f"width must be at least 1 pixel, got {width}")
    point = _pick(depth >= 0.5 * depth.max(), 1, rng)[0]
    corners, drawn = [point], [point[None]]
    heading = rng.uniform(0, 2 * math.pi)
    length = rng.uniform(0.2, 0.4) * math.sqrt(np.count_nonzero(mask))
    for _ in range(strokes):
        stroke, heading = _stroke(mask, point, heading, length, rng)
        if len(stroke) == 0:
            break
        point = stroke[-1]
        corners.append(point)
        drawn.append(stroke)
    return Scribble(np.stack(corners), _draw(np.concatenate(drawn), mask, width))


def points(
    mask: Bool, rng: np.random.Generator, *, positive: int = 1, negative: int = 0, margin: float = 2.0
) -> Points:
    """Click inside a mask, away from its border, and outside it.

    Args:
        mask: ``(H, W)`` bool, at least one pixel.
        rng: Random generator.
        positive: Clicks inside, each at least half as far from the border as the deepest pixel.
        negative: Clicks outside, at least ``margin`` from the mask where any pixel is that far away, else
            on the pixels that are farthest.
        margin: Pixels.

    Returns:
        The points and their labels; a point comes twice only when pixels run out.

    Raises:
        ValueError: If the mask is empty or not two-dimensional, a count is negative, or a click outside
            is asked for and the mask fills the image.
    """
    depth = _depth(mask)
    if positive < 0 or negative < 0:
        raise ValueError(f"counts must not be negative, got positive={positive} and negative={negative}")
    if negative and mask.all():
        raise ValueError("negative must be 0 where the mask fills the image")
    inside = _pick(depth >= 0.5 * depth.max(), positive, rng)
    outside = np.zeros((0, 2))
    if negative:
        away = _distance_to(mask)
        outside = _pick(away >= min(margin, away.max()), negative, rng)
    labels = np.repeat(np.array([1, 0]), [positive, negative])
    return Points(np.concatenate([inside, outside]), labels)


def box(mask: Bool, rng: np.random.Generator, *, jitter: float = 0.1) -> Float:
    """Draw a box around a mask, as carelessly as asked.

    Args:
        mask: ``(H, W)`` bool, at least one pixel.
        rng: Random generator.
        jitter: Each edge moves by at most this share of the side it bounds, in [0, 0.5). The overlap with
            the tight box (intersection over union) stays at least ``(1 - 2 * jitter) ** 2``.

    Returns:
        ``(4,)`` float64: x0, y0, x1, y1, pixels, inside the image.

    Raises:
        ValueError: If the mask is empty or not two-dimensional, or ``jitter`` is out of range.
    """
    if not 0 <= jitter < 0.5:
        raise ValueError(f"jitter must be in [0, 0.5), got {jitter}")
    _check(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    edges = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)
    sides = np.tile(edges[2:] - edges[:2], 2)
    moved = edges + rng.uniform(-jitter, jitter, 4) * sides
    height, width = mask.shape
    return np.clip(moved, 0.0, np.array([width, height, width, height], dtype=np.float64))


def _check(mask: Bool) -> None:
    if mask.ndim != 2:
        raise ValueError(f"mask must have two axes (H, W), got shape {mask.shape}")
    if not mask.any():
        raise ValueError("mask must hold at least one pixel, got none")


def _depth(mask: Bool) -> Float:
    """Distance of each pixel from the outside, the outside of the image included."""
    _check(mask)
    return _distance_to(~np.pad(mask, 1))[1:-1, 1:-1]


def _distance_to(mask: Bool) -> Float:
    """Distance of each pixel's centre to that of the nearest pixel of a mask."""
    return np.asarray(ndimage.distance_transform_edt(~mask), dtype=np.float64)


def _pick(where: Bool, count: int, rng: np.random.Generator) -> Float:
    """Centres of ``count`` pixels, ``(count, 2)``, x then y."""
    rows, columns = np.nonzero(where)
    chosen = rng.choice(len(rows), count, replace=count > len(rows))
    return np.stack([columns[chosen], rows[chosen]], axis=-1).astype(np.float64) + 0.5


def _stroke(
    mask: Bool, start: Float, heading: float, length: float, rng: np.random.Generator
) -> tuple[Float, float]:
    """Find a straight piece inside the mask; ``(0, 2)`` where there is none."""
    while length >= _SHORTEST:
        for spread in np.linspace(0.4, math.pi, _HEADINGS):
            turn = heading + rng.uniform(-spread, spread)
            steps = np.linspace(0.0, length, 2 + math.ceil(_SAMPLES * length))[1:]
            stroke = start + steps[:, None] * np.array([math.cos(turn), math.sin(turn)])
            if _inside(stroke, mask):
                return stroke, turn
        length /= 2
    return np.zeros((0, 2)), heading


def _inside(points: Float, mask: Bool) -> bool:
    cells = np.floor(points).astype(np.int64)
    height, width = mask.shape
    if (cells < 0).any() or (cells >= (width, height)).any():
        return False
    return bool(mask[cells[:, 1], cells[:, 0]].all())


def _draw(points: Float, mask: Bool, width: float) -> Bool:
    cells = np.floor(points).astype(np.int64)
    line = np.zeros_like(mask)
    line[cells[:, 1], cells[:, 0]] = True
    if width > 1:
        line = _distance_to(line) < width / 2 + 0.5
    return line & mask
