# SPDX-License-Identifier: Apache-2.0
"""Auxiliary texts for the classes of the drawn world, in words the model knows and in plain English."""

from __future__ import annotations

from typing import Literal

from shapeworld.words import with_article

from recipes.segmentation.scenes import CLASSES, Kind

Aux = Literal["known words", "English"]

# most words of these are unknown to the model, as are all words of common English but sixty
_COLOURS = {
    "red": "the colour of blood and of ripe strawberries",
    "orange": "the colour between red and yellow, as of carrots",
    "yellow": "the colour of lemons and of egg yolk",
    "green": "the colour of grass and of fresh leaves",
    "cyan": "the colour of shallow water, between green and blue",
    "blue": "the colour of a clear sky at noon",
    "purple": "the colour of violets, between red and blue",
    "pink": "the colour of roses, a pale red",
    "white": "the colour of fresh snow and of milk",
    "black": "the colour of coal, without any light",
}
_MATERIALS = {
    "solid": "of one even tone",
    "striped": "with parallel bands of two tones",
    "dotted": "sprinkled with small round spots",
    "checked": "with a pattern of squares in two tones",
    "wavy": "with curved lines like water",
    "grainy": "speckled like sand",
}
_SHAPES = {
    "circle": "a round figure whose edge is everywhere equally far from its middle",
    "square": "a figure with four equal sides and four right angles",
    "triangle": "a figure with three straight sides and three corners",
    "star": "a figure with five points around its middle",
    "ring": "a round band with a hole in the middle",
    "cross": "two bars that meet at right angles in the middle",
    "heart": "a figure with two round tops and a point at the bottom, a sign of love",
    "crescent": "the figure of the moon when little of it is lit",
}


def auxiliary(kind: Kind, aux: Aux) -> list[str]:
    """Return one text for each class, in their order.

    Args:
        kind: Which classes.
        aux: ``"known words"`` says the name once more, in a sentence of the model's own vocabulary;
            ``"English"`` describes the class as a dictionary does.
    """
    if aux == "English":
        return [_english(name, kind) for name in CLASSES[kind]]
    return [_in_known_words(name, kind) for name in CLASSES[kind]]


def _in_known_words(name: str, kind: Kind) -> str:
    if kind == "shape":
        return f"thing and the thing is {with_article(name)}"
    return f"thing and the thing is {' and '.join(name.split()[:-1])}"


def _english(name: str, kind: Kind) -> str:
    if kind == "shape":
        return _SHAPES[name]
    *material, colour, _ = name.split()
    pattern = f"{_MATERIALS[material[0]]}, " if material else ""
    return f"an object {pattern}that has {_COLOURS[colour]}"
