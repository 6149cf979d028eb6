# SPDX-License-Identifier: Apache-2.0
"""Renders a scene, and says exactly which pixel shows what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shapeworld.grid import WHOLE, Grid, Window
from shapeworld.scene import Scene
from shapeworld.vocabulary import Attribute

Float = NDArray[np.float64]
UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]

UNNAMED = 255  # label of a thing of which an attribute says nothing


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
        """Return ``(H, W)`` uint8: 0 ground, else the place of the name in ``scene.values`` plus one.

        Things without a name have ``UNNAMED``.
        """
        names = self.scene.values[attribute]
        values: list[str] = [getattr(thing, attribute) for thing in self.scene.things]
        labels = [0, *(names.index(value) + 1 if value else UNNAMED for value in values)]
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
    image = scene.background.paint(grid)
    instances = np.zeros(grid.shape, dtype=np.uint8)
    full = np.zeros((len(scene.things), *grid.shape), dtype=np.bool_)
    for i, thing in enumerate(scene.things):
        rows, columns = grid.near(thing.x, thing.y, thing.reach())
        part = grid.cut(rows, columns)
        colour, cover, inside = thing.paint(part)
        patch = image[rows, columns]
        patch += cover[..., None] * (colour - patch)
        full[i, rows, columns] = inside
        instances[rows, columns][inside] = i + 1
    pixels = np.rint(np.clip(image, 0, 1, out=image) * 255).astype(np.uint8)
    return Rendering(pixels, instances, full, scene)
