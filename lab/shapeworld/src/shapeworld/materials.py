# SPDX-License-Identifier: Apache-2.0
"""What the things are made of: patterns of two tones, fixed to the thing, sharp at any scale."""

from __future__ import annotations

from collections.abc import Callable
from math import pi

import numpy as np
from numpy.typing import NDArray

from shapeworld.grid import cover

Float = NDArray[np.float64]
Pixel = float | Float

# one period spans this share of the radius, within bounds (scene units) that a patch of 1/8 image can see
PERIOD, PERIOD_MIN, PERIOD_MAX = 0.36, 0.066, 0.11
DARKER, LIGHTER = 0.42, 0.45
GRAIN_CELLS = 16


def period_of(radius: float) -> float:
    """Return the period of the pattern on a thing of this radius; both in scene units."""
    return min(max(PERIOD * radius, PERIOD_MIN), PERIOD_MAX)


def second_tone(base: Float) -> Float:
    """Return the other tone of a pattern, ``(3,)`` RGB: a darker one, or a lighter one on black."""
    return base + (1 - base) * LIGHTER if base.mean() < 0.2 else base * DARKER


def tone(material: str, u: Float, v: Float, pixel: Pixel, period: float, rng: np.random.Generator) -> Float:
    """Return the share of the second tone at points of a thing.

    Args:
        material: A name of ``vocabulary.MATERIALS``.
        u: First coordinate along the thing's own axes, scene units, any shape.
        v: Second coordinate, shape of ``u``.
        pixel: Side of a pixel in scene units.
        period: Period of the pattern in scene units.
        rng: Chooses phase and direction.

    Returns:
        Shape of ``u``, in [0, 1].
    """
    phase = rng.random(3)
    turn = phase[2] * pi
    c, s = np.cos(turn), np.sin(turn)
    u, v = c * u + s * v + phase[0] * period, c * v - s * u + phase[1] * period
    return _TONES[material](u, v, pixel, period, rng)


def _solid(u: Float, v: Float, pixel: Pixel, period: float, rng: np.random.Generator) -> Float:
    return np.zeros(np.broadcast_shapes(u.shape, v.shape))


def _bands(u: Float, pixel: Pixel, period: float, duty: float = 0.5) -> Float:
    """Cover by parallel bands that fill ``duty`` of each period."""
    off_centre = np.abs(u - period * np.round(u / period))
    return cover(off_centre - 0.5 * duty * period, pixel)


def _striped(u: Float, v: Float, pixel: Pixel, period: float, rng: np.random.Generator) -> Float:
    return _bands(u, pixel, period)


def _dotted(u: Float, v: Float, pixel: Pixel, period: float, rng: np.random.Generator) -> Float:
    du, dv = u - period * np.round(u / period), v - period * np.round(v / period)
    return cover(np.hypot(du, dv) - 0.32 * period, pixel)


def _checked(u: Float, v: Float, pixel: Pixel, period: float, rng: np.random.Generator) -> Float:
    a, b = _bands(u, pixel, 1.2 * period), _bands(v, pixel, 1.2 * period)
    return a + b - 2 * a * b


def _wavy(u: Float, v: Float, pixel: Pixel, period: float, rng: np.random.Generator) -> Float:
    bend = 0.42 * period * np.sin(v * (2 * pi / (1.9 * period)))
    return _bands(u + bend, pixel, period)


def _grainy(u: Float, v: Float, pixel: Pixel, period: float, rng: np.random.Generator) -> Float:
    """Irregular speckles: random values on a fine lattice that repeats after 16 cells."""
    lattice = rng.random((GRAIN_CELLS, GRAIN_CELLS))
    cell = 0.42 * period
    i, j = u / cell, v / cell
    i0, j0 = np.floor(i), np.floor(j)
    fi, fj = i - i0, j - j0
    i0, j0 = i0.astype(np.int64) % GRAIN_CELLS, j0.astype(np.int64) % GRAIN_CELLS
    i1, j1 = (i0 + 1) % GRAIN_CELLS, (j0 + 1) % GRAIN_CELLS
    near = lattice[i0, j0] * (1 - fj) + lattice[i0, j1] * fj
    far = lattice[i1, j0] * (1 - fj) + lattice[i1, j1] * fj
    value = near * (1 - fi) + far * fi
    gain = 3.0 / np.maximum(1, pixel / cell)  # what is finer than a pixel averages out
    return np.clip(0.5 + gain * (value - 0.5), 0, 1)


_TONES: dict[str, Callable[[Float, Float, Pixel, float, np.random.Generator], Float]] = {
    "solid": _solid,
    "striped": _striped,
    "dotted": _dotted,
    "checked": _checked,
    "wavy": _wavy,
    "grainy": _grainy,
}
