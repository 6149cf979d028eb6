# SPDX-License-Identifier: Apache-2.0
"""Exact signed distances to the outlines of the shapes.

Every shape fits into the unit circle around the origin, x to the right and y down. Distances are negative
inside. A symmetric outline is folded onto one of its mirror sectors first: the nearest point of a figure with
mirror symmetry lies in the sector of the point itself, so that one or two segments give the whole distance.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, hypot, pi, sin, sqrt

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

CIRCLE_RADIUS = 0.9
SQUARE_HALF_SIDE = 0.72
STAR_INNER_RADIUS = 0.45
RING_RADIUS, RING_HALF_WIDTH = 0.72, 0.25
CROSS_LENGTH, CROSS_HALF_WIDTH = 0.94, 0.33
# a bite of this radius, its centre so far right of that of the disc
BITE_RADIUS, BITE_CENTRE = 0.80, 0.50


def distance(shape: str, x: Float, y: Float) -> Float:
    """Return the signed distance of points to the outline of a shape.

    Args:
        shape: A name of ``vocabulary.SHAPES``.
        x: To the right, any array shape, in units of the circumscribed radius.
        y: Down, shape of ``x``.

    Returns:
        Shape of ``x``, same unit, negative inside.
    """
    return _DISTANCES[shape](x, y)


def _circle(x: Float, y: Float) -> Float:
    return np.hypot(x, y) - CIRCLE_RADIUS


def _square(x: Float, y: Float) -> Float:
    dx, dy = np.abs(x) - SQUARE_HALF_SIDE, np.abs(y) - SQUARE_HALF_SIDE
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0)


def _triangle(x: Float, y: Float) -> Float:
    return _spikes(x, y, 3, 0.5)


def _star(x: Float, y: Float) -> Float:
    return _spikes(x, y, 5, STAR_INNER_RADIUS)


def _spikes(x: Float, y: Float, count: int, inner: float) -> Float:
    """Distance to a star: ``count`` tips of radius 1, the first on top, notches of radius ``inner``."""
    radius, half = np.hypot(x, y), pi / count
    angle = np.abs((np.arctan2(x, -y) + half) % (2 * half) - half)  # from the nearest point's axis
    px, py = radius * np.cos(angle), radius * np.sin(angle)
    nx, ny = inner * cos(half), inner * sin(half)
    return _segment(px, py, (1.0, 0.0), (nx, ny))


def _segment(x: Float, y: Float, start: tuple[float, float], end: tuple[float, float]) -> Float:
    """Distance to a segment, negative on the left of the way from start to end as y points down."""
    ex, ey = end[0] - start[0], end[1] - start[1]
    px, py = x - start[0], y - start[1]
    along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
    side = ey * px - ex * py
    return np.copysign(np.hypot(px - along * ex, py - along * ey), side)


def _ring(x: Float, y: Float) -> Float:
    return np.abs(np.hypot(x, y) - RING_RADIUS) - RING_HALF_WIDTH


def _cross(x: Float, y: Float) -> Float:
    x, y = np.abs(x), np.abs(y)
    x, y = np.maximum(x, y), np.minimum(x, y)
    dx, dy = x - CROSS_LENGTH, y - CROSS_HALF_WIDTH
    inner = x - CROSS_HALF_WIDTH  # towards the notch between two arms
    outside = np.where(dy > 0, np.where(dx > 0, np.hypot(dx, dy), dy), dx)
    inside = np.where(inner > 0, np.maximum(dx, dy), -np.hypot(inner, dy))
    return np.where((dx < 0) & (dy < 0), inside, outside)


# two half discs on the upper sides of a square that stands on its corner; in units of the square's diagonal
# the figure spans 0 (tip) to 1.10 in height and its smallest circle has this radius around this height
_HEART_RADIUS, _HEART_HEIGHT = 0.6331, 0.6250


def _heart(x: Float, y: Float) -> Float:
    x, y = np.abs(x) * _HEART_RADIUS, _HEART_HEIGHT - y * _HEART_RADIUS
    lobe = np.hypot(x - 0.25, y - 0.75) - sqrt(0.125)
    along = 0.5 * np.maximum(x + y, 0)  # foot on the straight side
    side = np.minimum(np.hypot(x, y - 1), np.hypot(x - along, y - along))
    return np.where(x + y > 1, lobe, np.copysign(side, x - y)) / _HEART_RADIUS


def _crescent(x: Float, y: Float) -> Float:
    y = np.abs(y)
    hx = (1 - BITE_RADIUS**2 + BITE_CENTRE**2) / (2 * BITE_CENTRE)  # the horn, where both circles meet
    hy = sqrt(1 - hx * hx)
    body = np.maximum(np.hypot(x, y) - 1, BITE_RADIUS - np.hypot(x - BITE_CENTRE, y))
    # beyond both normals at the horn the horn itself is nearest
    past_disc = x * hy - y * hx > 0
    past_bite = (x - hx) * hy - (y - hy) * (hx - BITE_CENTRE) > 0
    return np.where(past_disc & past_bite, np.hypot(x - hx, y - hy), body)


_DISTANCES: dict[str, Callable[[Float, Float], Float]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "heart": _heart,
    "crescent": _crescent,
}


def corners(shape: str) -> tuple[tuple[float, float], ...]:
    """Return the named points of a shape, in its own coordinates: its tips, or nothing for round ones."""
    if shape == "square":
        s = SQUARE_HALF_SIDE
        return ((-s, -s), (s, -s), (s, s), (-s, s))
    if shape in ("triangle", "star"):
        count = 3 if shape == "triangle" else 5
        return tuple((sin(2 * pi * i / count), -cos(2 * pi * i / count)) for i in range(count))
    if shape == "cross":
        a, b = CROSS_LENGTH, CROSS_HALF_WIDTH
        return ((-b, -a), (b, -a), (a, -b), (a, b), (b, a), (-b, a), (-a, b), (-a, -b))
    if shape == "heart":
        return ((0.0, _HEART_HEIGHT / _HEART_RADIUS), (0.0, (_HEART_HEIGHT - 1) / _HEART_RADIUS))
    if shape == "crescent":
        hx = (1 - BITE_RADIUS**2 + BITE_CENTRE**2) / (2 * BITE_CENTRE)
        return ((hx, -sqrt(1 - hx * hx)), (hx, sqrt(1 - hx * hx)))
    return ()


def reach(shape: str) -> float:
    """Return the largest distance of the outline from the centre, in units of the radius."""
    if shape == "square":
        return hypot(SQUARE_HALF_SIDE, SQUARE_HALF_SIDE)
    return {"circle": CIRCLE_RADIUS, "ring": RING_RADIUS + RING_HALF_WIDTH}.get(shape, 1.0)
