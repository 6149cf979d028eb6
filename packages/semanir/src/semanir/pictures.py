# SPDX-License-Identifier: Apache-2.0
"""Before/after pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_PANEL = 420  # width of a panel, in pixels
_TALLEST = 4 * _PANEL  # a strip is shown narrower instead of as a picture of any height
_GAP, _HEAD = 14, 52
_BACKGROUND, _TITLE, _CAPTION, _FRAME = (18, 18, 20), (245, 245, 245), (165, 168, 175), (255, 196, 0)


@dataclass(frozen=True, slots=True)
class Panel:
    """One column of a comparison.

    Attributes:
        title: Above the picture.
        caption: Below the title, smaller.
        pixels: ``(H, W)`` or ``(H, W, 3)`` uint8; all panels of one size.
    """

    title: str
    caption: str
    pixels: NDArray[np.uint8]


def busiest_box(pixels: NDArray[np.uint8], side: int) -> tuple[int, int]:
    """Return top and left of the square with the strongest edges: where restoration shows."""
    grey = pixels.mean(axis=-1) if pixels.ndim == 3 else pixels.astype(np.float64)
    edges = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    total = np.pad(edges.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    span = max(1, side - 1)  # edges between the pixels of a box
    sums = total[span:, span:] - total[:-span, span:] - total[span:, :-span] + total[:-span, :-span]
    if sums.size == 0:
        return 0, 0
    top, left = np.unravel_index(sums.argmax(), sums.shape)
    return int(top), int(left)


def comparison(panels: Sequence[Panel], *, crop: tuple[int, int, int] | None = None) -> Image.Image:
    """Draw panels side by side, each above an enlarged crop of itself.

    Args:
        panels: At least one.
        crop: Top, left and side of the enlarged square, in pixels; the busiest quarter of the last panel's
            width if ``None``.

    Returns:
        An RGB picture; the crop is enlarged without interpolation, so that pixels show as they are.
    """
    height, width = panels[0].pixels.shape[:2]
    if crop is None:
        side = max(8, min(height, width) // 4)
        crop = (*busiest_box(panels[-1].pixels, side), side)
    scale = min(_PANEL / width, _TALLEST / height)
    shown = (max(1, round(width * scale)), max(1, round(height * scale)))
    sheet = Image.new(
        "RGB", (len(panels) * (_PANEL + _GAP) + _GAP, _HEAD + shown[1] + _PANEL + 3 * _GAP), _BACKGROUND
    )
    draw = ImageDraw.Draw(sheet)
    title_font, caption_font = ImageFont.load_default(20), ImageFont.load_default(14)
    for number, panel in enumerate(panels):
        left = _GAP + number * (_PANEL + _GAP)
        draw.text((left, 8), panel.title, _TITLE, title_font)
        draw.text((left, 32), panel.caption, _CAPTION, caption_font)
        image = Image.fromarray(panel.pixels).convert("RGB")
        sheet.paste(image.resize(shown, Image.Resampling.LANCZOS), (left, _HEAD + _GAP))
        top_px, left_px, side = crop
        square = image.crop((left_px, top_px, left_px + side, top_px + side))
        sheet.paste(
            square.resize((_PANEL, _PANEL), Image.Resampling.NEAREST), (left, _HEAD + shown[1] + 2 * _GAP)
        )
        corner = (left + left_px * scale, _HEAD + _GAP + top_px * scale)
        draw.rectangle((*corner, corner[0] + side * scale, corner[1] + side * scale), outline=_FRAME, width=2)
    return sheet
