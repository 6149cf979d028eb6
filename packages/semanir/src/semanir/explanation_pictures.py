# SPDX-License-Identifier: Apache-2.0
"""Figures of which patches a pixel attends to: as an image, and as a page with a slider for the keys."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import numpy as np
from common_kernels.runtime.pictures import (
    Panel,
    add_title,
    comparison,
    data_uri,
    distinct_colours,
    draw_masks,
    enlarge_or_reduce,
    escape,
    fill_template,
    json_for_script,
)
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from semanir.explanation import Listing

_WIDTH = 260  # of a panel, in pixels
_LARGEST = 900  # side of the image in the page, in pixels
_MARGIN = 0.5  # of the window's side, around it
_QUERY = (255, 255, 255)


def draw_listings(
    image: Image.Image, listings: Sequence[Listing], ks: Sequence[int], *, title: str = ""
) -> Image.Image:
    """Draw a row for each listing: its place in the image, then its window with the patches for each k.

    Args:
        image: RGB, of the size that was explained.
        listings: Result of :func:`semanir.explanation.explain`.
        ks: Numbers of keys to show; each among those of the listings.
        title: Text above the figure.

    Raises:
        ValueError: If a number of keys is not among those of a listing, or there is no listing.
    """
    panels: list[Panel] = []
    for listing in listings:
        box = _surroundings(listing, image.size)
        panels.append(Panel(f"stage {listing.stage}", _patches(listing), _place(image, box)))
        scale = _WIDTH / (box[2] - box[0])
        close = enlarge_or_reduce(image.crop(box), (_WIDTH, max(1, round((box[3] - box[1]) * scale))))
        for k in ks:
            found = listing.listed(k)
            text = f"{len(found)} of {len(listing.keys)} patches"
            panels.append(Panel(f"k = {k}", text, _marked(close, listing, found, box, scale)))
    drawn = comparison(panels, width=_WIDTH, columns=1 + len(ks))
    return add_title(drawn, title, font_size=20, indent=14) if title else drawn


def listings_page(image: Image.Image, listings: Sequence[Listing], *, title: str) -> str:
    """Return a self-contained page: the image, a choice of the stage, and a slider for the number of keys.

    Args:
        image: RGB, of the size that was explained.
        listings: Result of :func:`semanir.explanation.explain`.
        title: Title of the page.
    """
    scale = min(1.0, _LARGEST / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    views = [
        {
            "name": f"{listing.stage}: {_patches(listing)}",
            "token": listing.token_size,
            "query": list(listing.query),
            "keys": listing.keys.tolist(),
            "ranks": listing.ranks.tolist(),
            "ks": list(listing.ks),
            "box": list(_surroundings(listing, image.size)),
            "close": data_uri(image.crop(_surroundings(listing, image.size))),
        }
        for listing in listings
    ]
    shown = enlarge_or_reduce(image, size)
    data = {"image": data_uri(shown, "image/jpeg"), "size": list(image.size), "views": views}
    template = resources.files("semanir").joinpath("explanation.html").read_text("utf-8")
    return fill_template(template, {"TITLE": escape(title), "DATA": json_for_script(data)})


def _patches(listing: Listing) -> str:
    return f"patches of {listing.token_size:g} px" + (", rolled windows" if listing.shift else "")


def _surroundings(listing: Listing, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the box around all tokens of the window with a margin, within the image."""
    low = listing.keys.min(axis=0)
    high = listing.keys.max(axis=0) + listing.token_size
    margin = _MARGIN * float((high - low).max())
    left, top = (max(0, int(np.floor(value - margin))) for value in low)
    right, bottom = (
        min(limit, int(np.ceil(value + margin))) for value, limit in zip(high, size, strict=True)
    )
    return left, top, right, bottom


def _place(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    scale = _WIDTH / image.width
    small = enlarge_or_reduce(image, (_WIDTH, max(1, round(image.height * scale))))
    corners = [value * scale for value in box]
    ImageDraw.Draw(small).rectangle(corners, outline=tuple(distinct_colours(1)[0].tolist()), width=2)
    return small


def _marked(
    close: Image.Image,
    listing: Listing,
    found: NDArray[np.float64],
    box: tuple[int, int, int, int],
    scale: float,
) -> Image.Image:
    """Draw the listed patches bright, and a frame around the pixel's own."""
    mask = Image.new("1", close.size)
    draw = ImageDraw.Draw(mask)
    for x, y in found:
        draw.rectangle(_shown(x, y, listing.token_size, box, scale), fill=1)
    marked = Image.fromarray(draw_masks(np.asarray(close), np.asarray(mask, dtype=bool)[None], line=1))
    frame = _shown(*listing.query, listing.token_size, box, scale)
    ImageDraw.Draw(marked).rectangle(frame, outline=_QUERY, width=2)
    return marked


def _shown(
    x: float, y: float, side: float, box: tuple[int, int, int, int], scale: float
) -> tuple[int, int, int, int]:
    left, top = round((x - box[0]) * scale), round((y - box[1]) * scale)
    right, bottom = round((x + side - box[0]) * scale) - 1, round((y + side - box[1]) * scale) - 1
    return left, top, max(left, right), max(top, bottom)
