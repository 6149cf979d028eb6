# SPDX-License-Identifier: Apache-2.0
"""What captions, expressions and questions share: noun phrases, and when a claim about a scene is true.

A claim is true, false, or too close to call (``None``). Sentences only make claims that are true or false.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import hypot
from typing import Literal, TypeVar

import numpy as np

from shapeworld.scene import Scene, Thing
from shapeworld.vocabulary import HELD_OUT, Attribute

Phrasing = Literal["train", "held_out"]
Place = Literal["left", "right", "top", "bottom", "middle"]
Relation = Literal["above", "below", "left of", "right of", "in front of", "behind"]

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
PLACES: tuple[Place, ...] = ("left", "right", "top", "bottom", "middle")
RELATIONS: tuple[Relation, ...] = ("above", "below", "left of", "right of", "in front of", "behind")
ATTRIBUTES: tuple[Attribute, ...] = ("shape", "colour", "material")

# scene units: a smaller difference between two coordinates is never put into words
MARGIN = 0.06
# half the side of the square that surely is the middle of the image
MIDDLE = 0.12
# what must be seen of an overlap, in units of the smaller radius squared: about a twentieth of the thing
OVERLAP_AREA = 0.1

_PLURALS = {
    **{noun: noun for noun in ("bison", "deer", "fish", "garlic", "sheep", "shrimp")},
    **{"mouse": "mice", "flamingo": "flamingos", "kangaroo": "kangaroos", "toy": "toys"},
}

# an overlap is measured on so many points squared
_GRID_SIDE = 24

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A noun phrase: the things that have all the attributes it names."""

    shape: str | None = None
    """Name of a shape; any if ``None``."""
    colour: str | None = None
    """Name of a colour; any if ``None``."""
    material: str | None = None
    """Name of a material; any if ``None``."""

    def matches(self, thing: Thing) -> bool:
        """Return whether a thing has every named attribute."""
        return (
            self.shape in (None, thing.shape)
            and self.colour in (None, thing.colour)
            and self.material in (None, thing.material)
        )

    def named(self) -> tuple[Attribute, ...]:
        """Return the attributes that are named."""
        return tuple(name for name in ATTRIBUTES if getattr(self, name) is not None)

    def adjectives(self) -> tuple[Attribute, ...]:
        """Return the attributes that are named, but for the shape."""
        return tuple(name for name in self.named() if name != "shape")

    def without(self, attribute: Attribute) -> Description:
        """Return the description with one attribute less."""
        kept: dict[str, str] = {name: getattr(self, name) for name in self.named() if name != attribute}
        return Description(**kept)

    def noun(self, *, plural: bool = False) -> str:
        """Return the words, as in ``"striped red star"`` or ``"dotted things"``."""
        head = self.shape or "thing"
        if plural:
            head = pluralise(head)
        return " ".join(word for word in (self.material, self.colour, head) if word is not None)


ANYTHING = Description()


def describe(thing: Thing, attributes: Iterable[Attribute]) -> Description:
    """Return the description of a thing by some of its attributes, as far as it has them."""
    named: dict[str, str] = {name: value for name in attributes if (value := getattr(thing, name))}
    return Description(**named)


def descriptions(thing: Thing) -> list[Description]:
    """Return the eight descriptions of a thing, that without any attribute first."""
    return [describe(thing, names) for size in range(4) for names in combinations(ATTRIBUTES, size)]


def matching(description: Description, scene: Scene) -> tuple[int, ...]:
    """Return the indices of the things that a description matches."""
    return tuple(i for i, thing in enumerate(scene.things) if description.matches(thing))


def unique_descriptions(scene: Scene, i: int) -> list[Description]:
    """Return what matches thing ``i`` alone and no longer would with a colour or material less.

    The shape is kept even where it is not needed, since it stands for plain ``"thing"``.
    """
    return [
        candidate
        for candidate in descriptions(scene.things[i])
        if matching(candidate, scene) == (i,)
        and all(matching(candidate.without(name), scene) != (i,) for name in candidate.adjectives())
    ]


def spoken(scene: Scene) -> tuple[Attribute, ...]:
    """Return the attributes of which something is said in the world of a scene."""
    return tuple(name for name in ATTRIBUTES if scene.values[name])


def are_named_apart(things: Sequence[Thing]) -> bool:
    """Return whether colour and shape, or the shape alone of a thing without colour, name one thing each."""
    pairs = {(thing.colour, thing.shape) for thing in things}
    bare = {shape for colour, shape in pairs if not colour}
    return len(pairs) == len(things) and not any(colour and shape in bare for colour, shape in pairs)


def names_unseen_pair(description: Description, scene: Scene) -> bool:
    """Return whether a held-out pair is named that is not in the scene, which would give the pair away."""
    pair = (description.colour, description.shape)
    return pair in HELD_OUT and pair not in {(thing.colour, thing.shape) for thing in scene.things}


def pluralise(noun: str) -> str:
    """Return the plural of the name of a thing."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return noun + ("es" if noun.endswith(("s", "sh", "ch", "x", "o")) else "s")


def with_article(noun: str) -> str:
    """Return a noun phrase with ``a`` or ``an`` before it."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def place_phrase(place: str) -> str:
    """Return a place with its preposition."""
    return f"{'in' if place == 'middle' else 'at'} the {place}"


def words_of(*sentences: str) -> frozenset[str]:
    """Return the words of sentences and templates, without slots."""
    return frozenset(" ".join(re.sub(r"\{\w*\}", " ", sentence) for sentence in sentences).split())


def choose(rng: np.random.Generator, options: Sequence[_T]) -> _T:
    """Return one of the options, each equally likely."""
    return options[int(rng.integers(len(options)))]


def shuffled(rng: np.random.Generator, options: Iterable[_T]) -> list[_T]:
    """Return the options in random order."""
    options = list(options)
    return [options[i] for i in rng.permutation(len(options))]


def check_choice(name: str, value: object, allowed: Iterable[str]) -> None:
    """Refuse a value that is none of the allowed words.

    Raises:
        ValueError: If it is not.
    """
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def at(thing: Thing, place: str) -> bool | None:
    """Return whether the centre of a thing is at a side or in the middle of the image.

    Between the middle (within ``MIDDLE`` of the centre on both axes) and a side lies a gap of ``MARGIN``
    where nothing is claimed.

    Args:
        thing: The thing.
        place: A name of ``PLACES``.
    """
    dx, dy = thing.x - 0.5, thing.y - 0.5
    if place == "middle":
        off = max(abs(dx), abs(dy))
        return True if off <= MIDDLE else False if off >= MIDDLE + MARGIN else None
    off = {"left": -dx, "right": dx, "top": -dy, "bottom": dy}[place]
    return True if off >= MIDDLE + MARGIN else False if off <= MIDDLE else None


def related(scene: Scene, i: int, relation: str, j: int) -> bool | None:
    """Return whether thing ``i`` stands in a relation to thing ``j``.

    Left, right, above and below compare the centres and need ``MARGIN``; in front and behind need an overlap
    that is seen.

    Args:
        scene: The scene.
        i: Index of the thing that is spoken of.
        relation: A name of ``RELATIONS``.
        j: Index of the other thing.
    """
    if relation == "in front of":
        return covers(scene)[i][j]
    if relation == "behind":
        return covers(scene)[j][i]
    one, other = scene.things[i], scene.things[j]
    if relation in ("left of", "right of"):
        ahead = other.x - one.x if relation == "left of" else one.x - other.x
    else:
        ahead = other.y - one.y if relation == "above" else one.y - other.y
    return True if ahead >= MARGIN else False if ahead <= -MARGIN else None


@lru_cache(maxsize=64)
def covers(scene: Scene) -> tuple[tuple[bool | None, ...], ...]:
    """Return for each thing which others it is seen to hide in part.

    Row ``i``, column ``j``: true if ``i`` is in front and ``OVERLAP_AREA`` of the overlap lies inside the
    image and under no third thing, false if ``i`` is the one behind or the outlines do not even touch,
    ``None`` in between.
    """
    table: list[list[bool | None]] = [[False] * len(scene.things) for _ in scene.things]
    for back, front in combinations(range(len(scene.things)), 2):
        table[front][back] = _covers(scene.things, back, front)
    return tuple(map(tuple, table))


def _covers(things: tuple[Thing, ...], back: int, front: int) -> bool | None:
    box = _common_box(things[back], things[front])
    if box is None:
        return False
    x0, y0, x1, y1 = box
    ticks = (np.arange(_GRID_SIDE) + 0.5) / _GRID_SIDE
    x, y = x0 + (x1 - x0) * ticks[None, :], y0 + (y1 - y0) * ticks[:, None]
    depth = np.maximum(things[back].distance(x, y), things[front].distance(x, y))  # (side, side)
    if not np.any(depth < hypot(x1 - x0, y1 - y0) / _GRID_SIDE):
        return False
    seen = depth < 0
    for i in range(front + 1, len(things)):
        if _common_box(things[i], things[front]) is not None:
            seen &= things[i].distance(x, y) > 0
    area = float(seen.mean()) * (x1 - x0) * (y1 - y0)
    return True if area >= OVERLAP_AREA * min(things[back].radius, things[front].radius) ** 2 else None


def _common_box(one: Thing, other: Thing) -> tuple[float, float, float, float] | None:
    """Return the part of the image, as x0, y0, x1, y1, that two things can share, or nothing."""
    # the outlines reach at most 1.02 times the radius
    reach, far = 1.02 * one.radius, 1.02 * other.radius
    x0, x1 = max(0.0, one.x - reach, other.x - far), min(1.0, one.x + reach, other.x + far)
    y0, y1 = max(0.0, one.y - reach, other.y - far), min(1.0, one.y + reach, other.y + far)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None
