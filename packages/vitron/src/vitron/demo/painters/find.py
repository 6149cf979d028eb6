# SPDX-License-Identifier: Apache-2.0
"""Objects of one colour on a plain background: their locations, and the one that a phrase names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from vitron.demo.painters.shapes import Mask, Pixels, shape_mask
from vitron.demo.painters.words import SHAPES, Phrase
from vitron.errors import UnsupportedRequestError
from vitron.specialists.words import COLOURS

_NAMES = tuple(COLOURS)
_PALETTE = np.asarray(list(COLOURS.values()), dtype=np.int64)
LARGEST = 4_000_000
MOST = 48  # objects; an image with more parts is a photograph
NEAR = 40  # largest distance in RGB, 0..255 each, of a background pixel


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """A part of the image.

    Attributes:
        mask: ``(H, W)``.
        colour: Name of the nearest colour.
        shape: Name of the shape that fits best.
    """

    mask: Mask
    colour: str
    shape: str

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Top, left, bottom and right; the last two are exclusive."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1

    @property
    def centre(self) -> tuple[float, float]:
        """Mean row and column."""
        rows, columns = np.nonzero(self.mask)
        return float(rows.mean()), float(columns.mean())

    @property
    def area(self) -> int:
        """Pixels."""
        return int(self.mask.sum())


def background_colour(image: Pixels) -> NDArray[np.int64]:
    """Return the median colour of the border, ``(3,)``."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return np.median(border, axis=0).astype(np.int64)


def things_in(image: Pixels) -> list[Thing]:
    """Return the objects of an image, from left to right.

    Args:
        image: ``(H, W, 3)``, uint8.

    Raises:
        UnsupportedRequestError: If it has more than :data:`LARGEST` pixels, or falls into more than
            :data:`MOST` parts of one colour.
    """
    if image.shape[0] * image.shape[1] > LARGEST:
        raise UnsupportedRequestError(
            f"the toys look for things in at most {LARGEST} pixels, got {image.shape[0]} x {image.shape[1]}"
        )
    pixels = image.astype(np.int64)
    background = background_colour(image)
    away = ((pixels - background) ** 2).sum(axis=-1) > NEAR**2
    # one colour at a time: all distances at once would need twelve times the memory of the image
    nearest = np.zeros(away.shape, dtype=np.int64)
    least = np.full(away.shape, np.iinfo(np.int64).max)
    for index, colour in enumerate(_PALETTE):
        distance = ((pixels - colour) ** 2).sum(axis=-1)
        nearest[distance < least] = index
        least = np.minimum(least, distance)
    smallest = max(4, away.size // 2000)
    found = list[Thing]()
    for index in np.unique(nearest[away]).tolist():
        labelled: Any = label(away & (nearest == index))
        parts: NDArray[np.int32] = labelled[0]
        areas = np.bincount(parts.ravel())
        for part in np.flatnonzero(areas >= smallest).tolist():
            if part:
                mask = np.asarray(parts == part, dtype=np.bool_)
                found.append(Thing(mask, _NAMES[index], best_shape(mask)))
                if len(found) > MOST:
                    raise UnsupportedRequestError(
                        f"the toys know drawn images, and this one has more than {MOST} parts"
                    )
    return sorted(found, key=lambda thing: thing.centre[::-1])


def best_shape(mask: Mask) -> str:
    """Return the name of the shape that, drawn into the box of a mask, covers it best."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]

    def fit(shape: str) -> float:
        drawn = shape_mask(shape, *cut.shape)
        return float((drawn & cut).sum() / (drawn | cut).sum())

    return max(SHAPES, key=fit)


def choose(things: list[Thing], phrase: Phrase) -> list[Thing]:
    """Return the objects that a phrase names."""
    left = [
        thing
        for thing in things
        if phrase.colour in (None, thing.colour) and phrase.shape in (None, thing.shape)
    ]
    keys = {
        "left": lambda thing: thing.centre[1],
        "right": lambda thing: -thing.centre[1],
        "top": lambda thing: thing.centre[0],
        "bottom": lambda thing: -thing.centre[0],
        "largest": lambda thing: -thing.area,
        "smallest": lambda thing: thing.area,
    }
    return [min(left, key=keys[phrase.order])] if phrase.order is not None and left else left
