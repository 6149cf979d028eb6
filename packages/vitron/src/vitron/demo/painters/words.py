# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of the toy painters."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vitron.specialists.words import colours_of

SHAPES = ("circle", "square", "triangle", "star", "cross")
OTHER_SHAPES = {"disc": "circle", "disk": "circle", "ball": "circle", "box": "square", "plus": "cross"}
SIZES = {"tiny": 0.15, "small": 0.2, "medium": 0.28, "large": 0.4, "big": 0.4, "huge": 0.55}
ORDERS = {
    "leftmost": "left",
    "rightmost": "right",
    "topmost": "top",
    "bottommost": "bottom",
    "lowest": "bottom",
    "highest": "top",
    "largest": "largest",
    "biggest": "largest",
    "smallest": "smallest",
}
PLACES = ("left", "right", "top", "bottom", "middle", "centre", "center")
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5}

_PARTS = re.compile(r",|;|\band\b|\bwith\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """Properties of an object in a phrase; ``None`` if not given.

    Attributes:
        colour: A key of :data:`vitron.specialists.words.COLOURS`.
        shape: One of :data:`SHAPES`.
        size: Side as a fraction of the image's shorter side.
        order: Order among several, such as "leftmost".
        places: Positions in the image.
        count: Number of objects.
    """

    colour: str | None = None
    shape: str | None = None
    size: float | None = None
    order: str | None = None
    places: tuple[str, ...] = ()
    count: int = 1

    @property
    def is_empty(self) -> bool:
        """Whether the phrase names no colour, shape or order."""
        return self.colour is None and self.shape is None and self.order is None


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, plural shapes in the singular."""
    found = re.findall(r"[a-z]+", text.lower())
    return [word[:-1] if word[:-1] in SHAPES or word[:-1] in OTHER_SHAPES else word for word in found]


def read_phrase(text: str) -> Phrase:
    """Parse one object, such as "the leftmost small red circle"."""
    words = words_of(text)
    shapes = [shape for shape in (OTHER_SHAPES.get(word, word) for word in words) if shape in SHAPES]
    return Phrase(
        colour=next(iter(colours_of(text)), None),
        shape=next(iter(shapes), None),
        size=next((SIZES[word] for word in words if word in SIZES), None),
        order=next((ORDERS[word] for word in words if word in ORDERS), None),
        places=tuple(word for word in words if word in PLACES),
        count=next((NUMBERS[word] for word in words if word in NUMBERS), 1),
    )


def read_things(text: str) -> list[Phrase]:
    """Parse a list of objects to draw, such as "a red circle and two blue stars"."""
    phrases = (read_phrase(part) for part in _PARTS.split(text.lower()))
    return [phrase for phrase in phrases if phrase.shape is not None]


def background_of(text: str) -> str | None:
    """Return the colour of "on a green background", or ``None``."""
    found = re.search(r"\bon an? ([a-z]+) background\b", text.lower())
    return next(iter(colours_of(found[1])), None) if found else None
