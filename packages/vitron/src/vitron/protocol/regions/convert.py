# SPDX-License-Identifier: Apache-2.0
"""Regions from pixels, and from one kind to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vitron.errors import RegionError
from vitron.protocol.contract import BoxRegion, MaskRegion, PointsRegion, PolygonRegion, Region
from vitron.protocol.regions.raster import Mask, rasterise
from vitron.protocol.rle import compress, encode_mask

Kind = Literal["box", "polygon", "mask", "points"]


def box_from_pixels(
    x0: float, y0: float, x1: float, y1: float, *, width: int, height: int, frame: int | None = None
) -> BoxRegion:
    """Return the box of pixel edges.

    Args:
        x0: Left edge, in pixels from the left of the image.
        y0: Top edge.
        x1: Right edge, at most ``width``.
        y1: Bottom edge, at most ``height``.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        frame: Frame of a video.

    Raises:
        RegionError: If the box leaves the image or its corners are reversed.

    Example:
        >>> box_from_pixels(16, 0, 48, 32, width=64, height=64).corners
        (0.25, 0.0, 0.75, 0.5)
    """
    _check_inside([(x0, y0), (x1, y1)], width, height, "box")
    if x1 <= x0 or y1 <= y0:
        raise RegionError(
            "a box needs its right edge beyond the left and its bottom beyond the top, got "
            f"[{x0:g}, {y0:g}, {x1:g}, {y1:g}]"
        )
    return BoxRegion(x0=x0 / width, y0=y0 / height, x1=x1 / width, y1=y1 / height, frame=frame)


def pixels_of_box(box: BoxRegion, *, width: int, height: int) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom edge of a box in pixels."""
    return box.x0 * width, box.y0 * height, box.x1 * width, box.y1 * height


def box_in_pixels(region: object, size: Sequence[int]) -> tuple[float, float, float, float] | None:
    """Return left, top, right and bottom of a box in pixels, not rounded; ``None`` for other kinds.

    Args:
        region: Region.
        size: Height and width of the image.
    """
    height, width = size
    return pixels_of_box(region, width=width, height=height) if isinstance(region, BoxRegion) else None


def points_from_pixels(
    points: Sequence[tuple[float, float]], *, width: int, height: int
) -> tuple[tuple[float, float], ...]:
    """Return pixel positions as fractions, for points, polygons and strokes.

    Args:
        points: ``(x, y)`` each, in pixels from the upper left corner.
        width: Width of the image in pixels.
        height: Height of the image in pixels.

    Raises:
        RegionError: If a point lies outside the image.
    """
    _check_inside(points, width, height, "point")
    return tuple((x / width, y / height) for x, y in points)


def _check_inside(points: Sequence[tuple[float, float]], width: int, height: int, what: str) -> None:
    if width < 1 or height < 1:
        raise RegionError(f"a region needs an image with pixels, got {width} x {height}")
    for x, y in points:
        if not (0 <= x <= width and 0 <= y <= height):
            raise RegionError(f"a {what} must lie inside the image of {width} x {height}, got ({x:g}, {y:g})")


def mask_to_region(mask: Mask, *, frame: int | None = None) -> MaskRegion:
    """Return a mask ``(H, W)`` as a region with compressed run lengths.

    Raises:
        RegionError: If the mask is not two-dimensional or has no pixels.
    """
    if mask.ndim != 2 or not mask.size:
        raise RegionError(f"a mask must be (H, W) with pixels, got shape {mask.shape}")
    height, width = mask.shape
    return MaskRegion(size=(height, width), counts=compress(encode_mask(mask)), frame=frame)


def mask_to_box(mask: Mask, *, frame: int | None = None) -> BoxRegion:
    """Return the smallest box around a mask ``(H, W)``.

    Raises:
        RegionError: If the mask is empty.
    """
    rows, columns = _pixels(mask)
    height, width = mask.shape
    return BoxRegion(
        x0=int(columns.min()) / width,
        y0=int(rows.min()) / height,
        x1=(int(columns.max()) + 1) / width,
        y1=(int(rows.max()) + 1) / height,
        frame=frame,
    )


def mask_to_point(mask: Mask, *, frame: int | None = None) -> PointsRegion:
    """Return one click on a mask ``(H, W)``: the centre of its pixel nearest to the centroid.

    Raises:
        RegionError: If the mask is empty.
    """
    rows, columns = _pixels(mask)
    near = int(np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2))
    height, width = mask.shape
    point = ((int(columns[near]) + 0.5) / width, (int(rows[near]) + 0.5) / height)
    return PointsRegion(points=(point,), frame=frame)


def _pixels(mask: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows, columns = np.nonzero(mask)
    if not rows.size:
        raise RegionError("an empty mask has no position in the image")
    return rows, columns


def mask_to_polygon(mask: Mask, *, frame: int | None = None) -> PolygonRegion:
    """Return the outline of the part of a mask ``(H, W)`` whose outline is longest, along pixel edges.

    Holes and further parts are lost: a polygon is one line. For a mask of one part without holes the polygon,
    drawn again at the same size, is the mask.

    Raises:
        RegionError: If the mask is empty, or so ragged that its outline has too many corners.
    """
    _pixels(mask)
    height, width = mask.shape
    ring = max(_rings(mask), key=len)
    corners = [
        here
        for before, here, after in zip([ring[-1], *ring[:-1]], ring, [*ring[1:], ring[0]], strict=True)
        if (here[0] - before[0]) * (after[1] - here[1]) != (here[1] - before[1]) * (after[0] - here[0])
    ]
    if len(corners) > 4096:
        raise RegionError(f"the outline has {len(corners)} corners, more than 4096: keep it as a mask")
    return PolygonRegion(points=tuple((x / width, y / height) for y, x in corners), frame=frame)


def _rings(mask: Mask) -> list[list[tuple[int, int]]]:
    """Follow the edges between mask and background, the mask on the right hand; corners are (row, column)."""
    padded = np.pad(mask, 1)
    inside, steps = padded[1:-1, 1:-1], dict[tuple[int, int], list[tuple[int, int]]]()
    # start corner relative to the pixel, direction, and the neighbour that must be background
    sides = (
        (padded[:-2, 1:-1], (0, 0), (0, 1)),
        (padded[1:-1, 2:], (0, 1), (1, 0)),
        (padded[2:, 1:-1], (1, 1), (0, -1)),
        (padded[1:-1, :-2], (1, 0), (-1, 0)),
    )
    for neighbour, (row0, column0), step in sides:
        for row, column in np.argwhere(inside & ~neighbour).tolist():
            steps.setdefault((row + row0, column + column0), []).append(step)
    rings = list[list[tuple[int, int]]]()
    while steps:
        place = start = next(iter(steps))
        ring, heading = list[tuple[int, int]](), (0, 0)
        while True:
            ring.append(place)
            choices = steps[place]
            # turn right where two parts touch at a corner: the parts stay separate
            right = (heading[1], -heading[0])
            heading = right if right in choices else choices[0]
            choices.remove(heading)
            if not choices:
                del steps[place]
            place = (place[0] + heading[0], place[1] + heading[1])
            if place == start:
                break
        rings.append(ring)
    return rings


def convert_region(
    region: Region, kind: Kind, *, height: int, width: int, masks: Mapping[str, Mask] | None = None
) -> Region:
    """Return a region as another kind, by way of its mask; the frame stays.

    Args:
        region: Any region.
        kind: Kind of the result.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        masks: Masks by name, ``(H, W)``, for a reference.

    Returns:
        The region itself if it is of that kind.

    Raises:
        RegionError: If a reference is unknown, or the mask empty.
    """
    if region.kind == kind:
        return region
    mask = rasterise(region, height, width, masks=masks)
    makers = {
        "box": mask_to_box,
        "polygon": mask_to_polygon,
        "mask": mask_to_region,
        "points": mask_to_point,
    }
    if kind not in makers:
        raise RegionError(f"a region becomes a {', '.join(makers)}, got {kind!r}")
    return makers[kind](mask, frame=region.frame)
