# SPDX-License-Identifier: Apache-2.0
"""Backgrounds, in colours of the things too, so that colour alone shows no edge."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray

from shapeworld.grid import Grid, cover
from shapeworld.vocabulary import PALETTE

Float = NDArray[np.float64]

_COLOURS = np.array(list(PALETTE.values()))
GREYED = (0.25, 0.7)  # how far palette colours are mixed with grey, so that a thing stays visible on its own
NUM_LEAVES = 44
CLOUD_CELLS = (5, 11, 23)


def render(kind: str, seed: int, saturation: float, grid: Grid) -> Float:
    """Render a background.

    Args:
        kind: A name of ``vocabulary.BACKGROUNDS``.
        seed: Seed of colours and forms.
        saturation: Factor on the distance of its colours from their grey mean, in [0, 1].
        grid: Pixel grid.

    Returns:
        ``(H, W, 3)`` RGB in [0, 1].
    """
    rng = np.random.default_rng(seed)
    return _RENDERERS[kind](rng, saturation, grid)


def _palette(rng: np.random.Generator, count: int, saturation: float) -> Float:
    """Draw colours, ``(count, 3)``: half near those of the things, half from anywhere."""
    free = rng.uniform(0.08, 0.92, (count, 3))
    named = _COLOURS[rng.integers(len(_COLOURS), size=count)] + rng.uniform(-0.08, 0.08, (count, 3))
    grey = rng.uniform(0.25, 0.75, (count, 1))
    named += rng.uniform(*GREYED, (count, 1)) * (grey - named)
    colours = np.clip(np.where(rng.random((count, 1)) < 0.5, named, free), 0, 1)
    mean = colours.mean(axis=1, keepdims=True)
    return mean + saturation * (colours - mean)


def _gradient(rng: np.random.Generator, saturation: float, grid: Grid) -> Float:
    start, end = _palette(rng, 2, saturation)
    turn, bend, cx, cy = rng.uniform(0, 2 * pi), rng.uniform(-0.6, 0.6), *rng.random(2)
    dx, dy = grid.x - 0.5, grid.y - 0.5
    along = 0.5 + 0.7 * (cos(turn) * dx + sin(turn) * dy) + bend * ((grid.x - cx) ** 2 + (grid.y - cy) ** 2)
    return start + np.clip(along, 0, 1)[..., None] * (end - start)


def _waves(rng: np.random.Generator, saturation: float, grid: Grid) -> Float:
    mean, *others = _palette(rng, 4, saturation)
    image = np.broadcast_to(mean, (*grid.shape, 3)).copy()
    for colour in others:
        turn, cycles, phase = rng.uniform(0, 2 * pi), rng.uniform(1, 5), rng.uniform(0, 2 * pi)
        fade = np.exp(-0.5 * np.square(cycles * grid.pixel))  # waves finer than a pixel average out
        wave = np.sin(2 * pi * cycles * (cos(turn) * grid.x + sin(turn) * grid.y) + phase) * fade
        image += (0.35 * wave)[..., None] * (colour - mean)
    return np.clip(image, 0, 1, out=image)


def _clouds(rng: np.random.Generator, saturation: float, grid: Grid) -> Float:
    low, high = _palette(rng, 2, saturation)
    height = np.zeros(grid.shape)
    for octave, cells in enumerate(CLOUD_CELLS):
        # a lattice that repeats after the image's side, for windows that look over its edge
        height += 0.55**octave * _lattice_noise(rng.standard_normal((cells, cells)), grid)
    return low + np.clip(0.5 + 0.55 * height, 0, 1)[..., None] * (high - low)


def _lattice_noise(lattice: Float, grid: Grid) -> Float:
    """Interpolate a periodic lattice of one period per scene side with smooth weights."""
    cells = len(lattice)
    x0, x1, fx = _cell(grid.x * cells, cells)
    y0, y1, fy = _cell(grid.y * cells, cells)
    upper = lattice[y0, x0] + fx * (lattice[y0, x1] - lattice[y0, x0])
    lower = lattice[y1, x0] + fx * (lattice[y1, x1] - lattice[y1, x0])
    return upper + fy * (lower - upper)


def _cell(position: Float, cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Float]:
    start = np.floor(position)
    part = position - start
    index = start.astype(np.int64) % cells
    return index, (index + 1) % cells, part * part * (3 - 2 * part)


def _tiles(rng: np.random.Generator, saturation: float, grid: Grid) -> Float:
    joint, first, second = _palette(rng, 3, saturation)
    side, aspect = rng.uniform(0.16, 0.30), rng.choice([1.0, 2.0])
    shift, turn = rng.choice([0.0, 0.5]), rng.uniform(-0.25, 0.25)
    x0, y0 = rng.random(2)
    u = cos(turn) * grid.x + sin(turn) * grid.y + x0
    v = cos(turn) * grid.y - sin(turn) * grid.x + y0
    row = np.floor(v / side)
    u = u / (aspect * side) + shift * row
    column = np.floor(u)
    # distance to the nearest joint, in scene units
    edge = np.minimum(
        aspect * side * np.minimum(u - column, column + 1 - u),
        side * np.minimum(v / side - row, row + 1 - v / side),
    )
    shades = rng.random((7, 11))[row.astype(np.int64) % 7, column.astype(np.int64) % 11]
    tile = first + shades[..., None] * (second - first)
    return tile + cover(edge - 0.011, grid.pixel)[..., None] * (joint - tile)


def _leaves(rng: np.random.Generator, saturation: float, grid: Grid) -> Float:
    ground, *colours = _palette(rng, 1 + NUM_LEAVES, saturation)
    image = np.broadcast_to(ground, (*grid.shape, 3)).copy()
    centres = rng.uniform(-0.15, 1.15, (NUM_LEAVES, 2))
    # areas follow a power law, as those of things seen at all distances do; the large ones lie lowest
    radii = np.sort(0.05 / np.sqrt(rng.uniform(0.03, 1, NUM_LEAVES)))[::-1]
    turns, aspects = rng.uniform(0, pi, NUM_LEAVES), rng.uniform(0.45, 1, NUM_LEAVES)
    for (cx, cy), radius, turn, aspect, colour in zip(
        centres.tolist(), radii.tolist(), turns.tolist(), aspects.tolist(), colours, strict=True
    ):
        rows, columns = grid.near(cx, cy, radius)
        part = grid.cut(rows, columns)
        dx, dy = part.x - cx, part.y - cy
        u, v = cos(turn) * dx + sin(turn) * dy, (cos(turn) * dy - sin(turn) * dx) / aspect
        edge = (np.hypot(u, v) - radius) * aspect  # close to the distance; exact for round leaves
        patch = image[rows, columns]
        patch += cover(edge, part.pixel)[..., None] * (colour - patch)
    return image


_RENDERERS: dict[str, Callable[[np.random.Generator, float, Grid], Float]] = {
    "leaves": _leaves,
    "gradient": _gradient,
    "waves": _waves,
    "clouds": _clouds,
    "tiles": _tiles,
}
