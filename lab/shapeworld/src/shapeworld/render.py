# SPDX-License-Identifier: Apache-2.0
"""Renders a scene, and says exactly which pixel shows what."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, sin
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shapeworld import backgrounds, materials, shapes
from shapeworld.grid import WHOLE, Grid, Window, cover
from shapeworld.scene import Scene, Thing
from shapeworld.vocabulary import COLOURS, MATERIALS, PALETTE, SHAPES, Attribute

Float = NDArray[np.float64]
UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]

SHADE = 0.05  # largest change of each channel from a colour of the palette
_NAMES: dict[Attribute, tuple[str, ...]] = {"shape": SHAPES, "colour": COLOURS, "material": MATERIALS}


@dataclass(frozen=True, slots=True, eq=False)
class Rendering:
    """A rendered scene with its ground truth.

    Attributes:
        image: ``(H, W, 3)`` uint8 RGB.
        instances: ``(H, W)`` uint8: 0 ground, ``i + 1`` the thing ``scene.things[i]`` on top there.
        full: ``(N, H, W)`` bool: all of each thing, covered parts too.
        scene: The rendered scene.
    """

    image: UInt8
    instances: UInt8
    full: Bool
    scene: Scene

    def semantic(self, attribute: Attribute) -> UInt8:
        """Return ``(H, W)`` uint8: 0 ground, else the place of the name in its vocabulary plus one."""
        names = _NAMES[attribute]
        labels = [0, *(names.index(getattr(thing, attribute)) + 1 for thing in self.scene.things)]
        return np.array(labels, dtype=np.uint8)[self.instances]

    def visible(self) -> Bool:
        """Return ``(N, H, W)`` bool: the part of each thing that is seen."""
        return self.instances == np.arange(1, len(self.scene.things) + 1, dtype=np.uint8)[:, None, None]

    def boxes(self, kind: Literal["visible", "full"] = "visible") -> NDArray[np.int64]:
        """Return ``(N, 4)`` int64 ``x0, y0, x1, y1``, half open, in pixels; zeros where nothing is seen."""
        masks = self.visible() if kind == "visible" else self.full
        boxes = np.zeros((len(masks), 4), dtype=np.int64)
        for box, mask in zip(boxes, masks, strict=True):
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            if len(rows):
                box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return boxes


def render(scene: Scene, side: int | tuple[int, int] = 64, *, window: Window = WHOLE) -> Rendering:
    """Render a scene.

    Args:
        scene: The scene.
        side: Pixels of the image, one number or height and width.
        window: Part of the scene that fills it, ``x0, y0, x1, y1`` in scene units; may look over the edges.

    Raises:
        ValueError: If ``side`` is below 1 or the window is empty.
    """
    height, width = (side, side) if isinstance(side, int) else side
    if min(height, width) < 1:
        raise ValueError(f"side must be at least 1 pixel, got {side}")
    return _render(scene, Grid.of_window(height, width, window))


def render_at(scene: Scene, x: Float, y: Float, pixel: float | Float) -> Rendering:
    """Render a scene at given places.

    Args:
        scene: The scene.
        x: Scene coordinate of each pixel's centre, ``(H, W)`` float64.
        y: The other one, ``(H, W)``.
        pixel: Side of a pixel in scene units, a number or ``(H, W)``.
    """
    return _render(scene, Grid(x, y, pixel))


def _render(scene: Scene, grid: Grid) -> Rendering:
    ground = scene.background
    image = backgrounds.render(ground.kind, ground.seed, ground.saturation, grid)
    instances = np.zeros(grid.shape, dtype=np.uint8)
    full = np.zeros((len(scene.things), *grid.shape), dtype=np.bool_)
    for i, thing in enumerate(scene.things):
        rows, columns = grid.near(thing.x, thing.y, thing.radius * shapes.reach(thing.shape))
        part = grid.cut(rows, columns)
        colour, edge = _render_thing(thing, part)
        patch = image[rows, columns]
        patch += cover(edge, part.pixel)[..., None] * (colour - patch)
        inside = edge < 0
        full[i, rows, columns] = inside
        instances[rows, columns][inside] = i + 1
    pixels = np.rint(np.clip(image, 0, 1, out=image) * 255).astype(np.uint8)
    return Rendering(pixels, instances, full, scene)


def _render_thing(thing: Thing, grid: Grid) -> tuple[Float, Float]:
    """Return the colour ``(h, w, 3)`` of a thing and its signed distance ``(h, w)``, scene units."""
    rng = np.random.default_rng(thing.seed)
    dx, dy = grid.x - thing.x, grid.y - thing.y
    c, s = cos(thing.angle), sin(thing.angle)
    u, v = c * dx + s * dy, c * dy - s * dx
    edge = shapes.distance(thing.shape, u / thing.radius, v / thing.radius) * thing.radius
    base = np.clip(np.array(PALETTE[thing.colour]) + rng.uniform(-SHADE, SHADE, 3), 0, 1)
    second = materials.second_tone(base)
    share = materials.tone(thing.material, u, v, grid.pixel, materials.period_of(thing.radius), rng)
    return base + share[..., None] * (second - base), edge
