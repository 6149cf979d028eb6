# SPDX-License-Identifier: Apache-2.0
"""Comparisons of an image before and after, each above an enlarged crop of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from common_kernels.runtime.images import ImageFile
from common_kernels.runtime.pictures import BACKGROUND, Panel, comparison, enlarge_or_reduce
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_WIDTH, _GAP, _FRAME = 420, 14, (255, 196, 0)
_STEPS = 16
_TALLEST = 3 * _WIDTH - _GAP  # a strip is shown narrower instead of in any height


def busiest_box(pixels: NDArray[np.uint8], side: int) -> tuple[int, int]:
    """Return top and left of the square with the strongest edges: where restoration shows.

    Large images are searched in steps of a sixteenth of the side, a strip at a time.
    """
    height, width = pixels.shape[:2]
    step = max(1, side // _STEPS)
    if min(height, width) < 2:
        return 0, 0
    rows = [_edges(pixels[top : top + step + 1], step) for top in range(0, height - 1, step)]
    total = np.pad(np.stack(rows).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    span = max(1, (side - 1) // step)  # edges between the pixels of a box
    sums = total[span:, span:] - total[:-span, span:] - total[span:, :-span] + total[:-span, :-span]
    if sums.size == 0:
        return 0, 0
    top, left = np.unravel_index(sums.argmax(), sums.shape)
    return min(int(top) * step, max(0, height - side)), min(int(left) * step, max(0, width - side))


def _edges(strip: NDArray[np.uint8], step: int) -> NDArray[np.float64]:
    """Return the sums of edges in the cells of a strip, ``(columns,)``."""
    grey = strip.mean(axis=-1) if strip.ndim == 3 else strip.astype(np.float64)
    edges = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    return np.add.reduceat(edges.sum(axis=0), np.arange(0, edges.shape[1], step))


def compare_details(panels: Sequence[Panel], *, crop: tuple[int, int, int] | None = None) -> Image.Image:
    """Draw images side by side, each above an enlarged crop of itself.

    Args:
        panels: At least one; all images of one size.
        crop: Top, left and side of the enlarged square, in pixels; the busiest quarter of the last image's
            shorter side if ``None``.

    Returns:
        RGB; the crop is enlarged without interpolation, so that pixels show as they are.
    """
    if crop is None:
        last = panels[-1].image
        side = max(8, min(last.size) // 4)
        crop = (*busiest_box(np.asarray(last), side), side)
    return comparison([replace(panel, image=_with_crop(panel.image, crop)) for panel in panels], width=_WIDTH)


def _with_crop(image: Image.Image, crop: tuple[int, int, int]) -> Image.Image:
    scale = min(_WIDTH / image.width, _TALLEST / image.height)
    width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    column = Image.new("RGB", (_WIDTH, height + _GAP + _WIDTH), BACKGROUND)
    column.paste(enlarge_or_reduce(image, (width, height)))
    top, left, side = crop
    square = image.crop((left, top, left + side, top + side))
    column.paste(enlarge_or_reduce(square, (_WIDTH, _WIDTH)), (0, height + _GAP))
    box = (left * scale, top * scale, (left + side) * scale, (top + side) * scale)
    ImageDraw.Draw(column).rectangle(box, outline=_FRAME, width=2)
    return column


def before_after(before: ImageFile, after: ImageFile, names: tuple[str, str]) -> Image.Image:
    """Draw an image before and after side by side, in sRGB over white.

    Args:
        before: Image; enlarged to the size of ``after`` without interpolation.
        after: Restored image, its sides multiples of those of ``before``.
        names: Texts below the titles.
    """
    shown = _visible(after)
    enlarged = _visible(before).resize(shown.size, Image.Resampling.NEAREST)
    return compare_details([Panel("before", names[0], enlarged), Panel("after", names[1], shown)])


def _visible(image: ImageFile) -> Image.Image:
    is_float = image.pixels.dtype == np.float32
    return (replace(image, pixels=image.pixels.clip(0, 1)) if is_float else image).to_rgb()
