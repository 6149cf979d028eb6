# SPDX-License-Identifier: Apache-2.0
"""Shapes as masks, and scenes made of them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vitron.demo.painters.words import Phrase
from vitron.protocol.contract import PolygonRegion
from vitron.protocol.regions.raster import rasterise
from vitron.specialists.words import COLOURS

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

BACKGROUND = (232, 232, 228)


def shape_mask(shape: str, height: int, width: int) -> Mask:
    """Return a shape that fills a box of ``height`` by ``width`` pixels, without soft edges."""
    if shape == "circle":
        rows = (np.arange(height) + 0.5) / height * 2 - 1
        columns = (np.arange(width) + 0.5) / width * 2 - 1
        return np.asarray(rows[:, None] ** 2 + columns[None] ** 2 <= 1, dtype=np.bool_)
    return rasterise(PolygonRegion(points=_CORNERS[shape]), height, width)


def _star() -> tuple[tuple[float, float], ...]:
    corners = list[tuple[float, float]]()
    for index in range(10):
        reach, angle = (0.5, 0.22)[index % 2], math.pi * (index / 5 - 0.5)
        corners.append((0.5 + reach * math.cos(angle), 0.5 + reach * math.sin(angle)))
    # stretched until it touches all sides of its box
    lows, highs = ([bound(axis) for axis in zip(*corners, strict=True)] for bound in (min, max))
    return tuple(
        ((x - lows[0]) / (highs[0] - lows[0]), (y - lows[1]) / (highs[1] - lows[1])) for x, y in corners
    )


_CORNERS: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((0, 0), (1, 0), (1, 1), (0, 1)),
    "triangle": ((0.5, 0), (1, 1), (0, 1)),
    "star": _star(),
    "cross": tuple(
        (x / 3, y / 3)
        for x, y in (
            *((1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (2, 2)),
            *((2, 3), (1, 3), (1, 2), (0, 2), (0, 1), (1, 1)),
        )
    ),
}


def stamp(canvas: Pixels, shape: Mask, row: int, column: int, colour: tuple[int, int, int]) -> None:
    """Draw a shape with its upper left corner at a position, cut off at the edges of the canvas."""
    canvas[shifted(shape, row, column, canvas.shape[:2])] = colour


def shifted(mask: Mask, row: int, column: int, size: tuple[int, ...]) -> Mask:
    """Return a mask placed on a canvas of ``size``, cut off at its edges."""
    out = np.zeros(size[:2], dtype=np.bool_)
    top, left = max(0, row), max(0, column)
    bottom, right = min(size[0], row + mask.shape[0]), min(size[1], column + mask.shape[1])
    if top < bottom and left < right:
        out[top:bottom, left:right] = mask[top - row : bottom - row, left - column : right - column]
    return out


def blank(height: int, width: int, colour: str | None = None) -> Pixels:
    """Return a plain canvas ``(height, width, 3)``."""
    canvas = np.empty((height, width, 3), dtype=np.uint8)
    canvas[:] = BACKGROUND if colour is None else COLOURS[colour]
    return canvas


def colour_for(phrase: Phrase, rng: np.random.Generator) -> str:
    """Return the colour of a phrase, or a random one."""
    return phrase.colour or str(rng.choice(list(COLOURS)[:6]))


def place_for(phrase: Phrase, side: int, taken: Mask, rng: np.random.Generator) -> tuple[int, int]:
    """Return the position of an object of ``side`` pixels: that of the phrase, else a random free one.

    Returns:
        Row and column of its upper left corner.
    """
    height, width = taken.shape
    spare = max(0, height - side), max(0, width - side)
    if phrase.places:
        row = 0.08 if "top" in phrase.places else 0.92 if "bottom" in phrase.places else 0.5
        column = 0.08 if "left" in phrase.places else 0.92 if "right" in phrase.places else 0.5
        return round(row * spare[0]), round(column * spare[1])
    place, least = (0, 0), side * side + 1
    for _ in range(40):
        row, column = int(rng.integers(spare[0] + 1)), int(rng.integers(spare[1] + 1))
        overlap = int(taken[row : row + side, column : column + side].sum())
        if overlap < least:
            place, least = (row, column), overlap
        if not least:
            break
    return place


def side_for(phrase: Phrase, height: int, width: int) -> int:
    """Return the side of an object in pixels."""
    return max(3, round((0.28 if phrase.size is None else phrase.size) * min(height, width)))
