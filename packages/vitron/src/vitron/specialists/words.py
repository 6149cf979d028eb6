# SPDX-License-Identifier: Apache-2.0
"""Colours, directions and edits that instructions name, for specialists without a language model."""

from __future__ import annotations

import re

__all__ = ["COLOURS", "colours_of", "direction_of", "guess_edit", "pixels_of", "quoted", "words_of"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (42, 157, 70),
    "blue": (35, 87, 200),
    "yellow": (250, 210, 40),
    "purple": (128, 50, 160),
    "orange": (245, 130, 30),
    "cyan": (40, 190, 210),
    "pink": (245, 130, 180),
    "brown": (120, 72, 36),
    "black": (20, 20, 20),
    "white": (250, 250, 250),
    "grey": (128, 128, 128),
}
OTHER_COLOURS = {
    "gray": "grey",
    "violet": "purple",
    "magenta": "pink",
    "turquoise": "cyan",
    "snow": "white",
    "snowy": "white",
    "ice": "cyan",
    "night": "black",
    "grass": "green",
    "forest": "green",
    "sea": "blue",
    "sky": "blue",
    "desert": "yellow",
    "sand": "yellow",
}
DIRECTIONS = {
    "left": (0, -1),
    "right": (0, 1),
    "up": (-1, 0),
    "upwards": (-1, 0),
    "top": (-1, 0),
    "down": (1, 0),
    "downwards": (1, 0),
    "bottom": (1, 0),
}


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case."""
    return re.findall(r"[a-z]+", text.lower())


def colours_of(text: str) -> list[str]:
    """Return the colours that a text names, in order: keys of :data:`COLOURS`."""
    found = (OTHER_COLOURS.get(word, word) for word in words_of(text))
    return [word for word in found if word in COLOURS]


def direction_of(text: str) -> tuple[int, int] | None:
    """Return the direction that a text names, in rows and columns, or ``None``."""
    steps = [DIRECTIONS[word] for word in words_of(text) if word in DIRECTIONS]
    if not steps:
        return None
    return sum(step[0] for step in steps), sum(step[1] for step in steps)


def pixels_of(text: str) -> int | None:
    """Return the number in "by 12", or ``None``."""
    found = re.search(r"\bby (\d{1,5})\b", text)
    return int(found[1]) if found else None


def guess_edit(text: str) -> str:
    """Return the action of an edit without a verb, such as "make it blue"."""
    words = words_of(text)
    verbs = {"remove": "remove", "delete": "remove", "erase": "remove", "add": "add", "move": "move"}
    verbs |= {"replace": "replace", "style": "restyle", "recolour": "recolour", "make": "recolour"}
    found = next((verbs[word] for word in words if word in verbs), None)
    if found == "recolour" and not colours_of(text):
        found = "restyle"
    return found or "restyle"


def quoted(text: str) -> str:
    """Return a text as errors cite it: in quotes, shortened, without the space that a split leaves."""
    return repr(text.strip()[:60])
