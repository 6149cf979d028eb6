# SPDX-License-Identifier: Apache-2.0
"""Regions drawn as masks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vitron.errors import RegionError
from vitron.protocol.contract import (
    BoxRegion,
    MaskRegion,
    PointsRegion,
    PolygonRegion,
    ReferenceRegion,
    Region,
    ScribbleRegion,
)
from vitron.protocol.rle import decode_mask

PATCHES = 24  # patches along a side of a tower with 336 px and patches of 14

Mask = NDArray[np.bool_]


def rasterise(
    region: Region,
    height: int,
    width: int,
    *,
    patch: int | None = None,
    masks: Mapping[str, Mask] | None = None,
) -> Mask:
    """Draw a region as a mask.

    A pixel belongs to a box or a polygon if its centre lies inside; a shape that misses every centre gets
    the one pixel it lies in. Points and strokes are widened by one patch to every side. Around a point that
    is not positive the same square is taken away again. A mask of another size is read at the nearest
    pixel.

    Args:
        region: Region to draw.
        height: Rows of the image.
        width: Columns of the image.
        patch: Side of a patch in pixels; by default a 24th of the longer side, at least 1.
        masks: Masks by name, ``(H, W)``, for a reference.

    Returns:
        ``(height, width)``, boolean.

    Raises:
        RegionError: If the image has no pixels, or ``masks`` lacks a reference.
    """
    if height < 1 or width < 1:
        raise RegionError(f"a region needs an image with pixels, got {height} x {width}")
    reach = max(1, math.ceil(max(height, width) / PATCHES)) if patch is None else patch
    match region:
        case BoxRegion():
            return _box(region, height, width)
        case PolygonRegion():
            return _polygon(region.points, height, width)
        case MaskRegion():
            return _resize(decode_mask(region.counts, *region.size), height, width)
        case ReferenceRegion():
            if masks is None or region.name not in masks:
                raise RegionError(f"there is no {region.name} in this conversation")
            return _resize(masks[region.name], height, width)
        case PointsRegion():
            signs = region.positive or (True,) * len(region.points)
            pairs = list(zip(region.points, signs, strict=True))
            wanted = _dots([point for point, sign in pairs if sign], height, width)
            unwanted = _dots([point for point, sign in pairs if not sign], height, width)
            kept = dilate(wanted, reach) & ~dilate(unwanted, reach)
            return kept | wanted
        case ScribbleRegion():
            line = np.zeros((height, width), dtype=bool)
            for stroke in region.strokes:
                _draw_stroke(line, stroke)
            return dilate(line, reach)


def dilate(mask: Mask, reach: int) -> Mask:
    """Widen a mask by ``reach`` pixels to every side, corners included.

    Args:
        mask: ``(H, W)``, boolean.
        reach: Number of pixels, from 0.

    Returns:
        ``(H, W)``, boolean.
    """
    from scipy import ndimage  # slow to import and rarely needed

    wide = ndimage.maximum_filter(mask.astype(np.uint8), size=2 * reach + 1, mode="constant")
    return np.asarray(wide, dtype=np.bool_)


def _centres(low: float, high: float, size: int) -> slice:
    """Return the pixels whose centres lie in ``[low, high)``, fractions; at least one."""
    first, last = math.ceil(low * size - 0.5), math.ceil(high * size - 0.5)
    if first >= last:
        first = min(size - 1, int((low + high) / 2 * size))
        last = first + 1
    return slice(max(0, first), min(size, last))


def _box(box: BoxRegion, height: int, width: int) -> Mask:
    mask = np.zeros((height, width), dtype=bool)
    mask[_centres(box.y0, box.y1, height), _centres(box.x0, box.x1, width)] = True
    return mask


def _polygon(points: Sequence[tuple[float, float]], height: int, width: int) -> Mask:
    """Even-odd fill: each edge flips all pixels to its right, in the rows whose centres it crosses."""
    flips = np.zeros((height, width + 1), dtype=np.int64)
    scaled = [(x * width, y * height) for x, y in points]
    for (x0, y0), (x1, y1) in zip(scaled, [*scaled[1:], scaled[0]], strict=True):
        if y0 > y1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        rows = np.arange(max(0, math.ceil(y0 - 0.5)), min(height, math.ceil(y1 - 0.5)))
        if not rows.size:
            continue
        crossing = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
        np.add.at(flips, (rows, columns), 1)
    mask = flips.cumsum(axis=1)[:, :width] % 2 == 1
    if not mask.any():
        middle = np.mean(np.asarray(points), axis=0)
        mask |= _dots([(float(middle[0]), float(middle[1]))], height, width)
    return mask


def _pixel(point: tuple[float, float], height: int, width: int) -> tuple[int, int]:
    """Return row and column of the pixel that a point lies in; the far edges belong to the last pixels."""
    return min(height - 1, int(point[1] * height)), min(width - 1, int(point[0] * width))


def _dots(points: Sequence[tuple[float, float]], height: int, width: int) -> Mask:
    mask = np.zeros((height, width), dtype=bool)
    for point in points:
        mask[_pixel(point, height, width)] = True
    return mask


def _draw_stroke(mask: Mask, stroke: Sequence[tuple[float, float]]) -> None:
    height, width = mask.shape
    pixels = [_pixel(point, height, width) for point in stroke]
    for (row0, column0), (row1, column1) in zip(pixels, [*pixels[1:], pixels[-1]], strict=True):
        steps = max(abs(row1 - row0), abs(column1 - column0)) + 1
        rows = np.rint(np.linspace(row0, row1, steps)).astype(np.int64)
        columns = np.rint(np.linspace(column0, column1, steps)).astype(np.int64)
        mask[rows, columns] = True


def _resize(mask: Mask, height: int, width: int) -> Mask:
    if mask.shape == (height, width):
        return mask.copy()
    rows = (np.arange(height) * 2 + 1) * mask.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * mask.shape[1] // (2 * width)
    return mask[rows][:, columns]
