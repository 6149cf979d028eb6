# SPDX-License-Identifier: Apache-2.0
"""Captions of three lengths, each true of its scene and naming every thing in it once.

Short: colour and shape, now and then the material. Medium: the material always, and the background. Long:
also size, place, and one or two relations.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from shapeworld.scene import Scene, Thing
from shapeworld.vocabulary import BACKGROUNDS, COLOURS, MATERIALS, SHAPES
from shapeworld.words import (
    MARGIN,
    PLACES,
    RELATIONS,
    Phrasing,
    at,
    check_choice,
    choose,
    describe,
    place_phrase,
    related,
    shuffled,
    with_article,
    words_of,
)

__all__ = ["MAX_WORDS", "WORDS", "Length", "background_phrase", "caption", "size_word"]

Length = Literal["short", "medium", "long"]

# a text encoder of 77 places keeps two of them for start and end
MAX_WORDS = 75

# radii in scene units; nothing is said about a thing in between
SMALL, LARGE = 0.15, 0.20

_SHORT: dict[Phrasing, tuple[str, ...]] = {
    "train": (
        "{things}",
        "a photo of {things}",
        "a picture of {things}",
        "there is {things}",
        "this picture shows {things}",
    ),
    "held_out": (
        "this is a photo of {things}",
        "this is a picture of {things}",
        "this photo shows {things}",
        "in this picture there is {things}",
    ),
}
_FULL: dict[Phrasing, tuple[str, ...]] = {
    "train": (
        "{things} on {ground}",
        "a photo of {things} on {ground}",
        "a picture of {things} on {ground}",
        "on {ground} there is {things}",
        "this picture shows {things} on {ground}",
    ),
    "held_out": (
        "this is a photo of {things} on {ground}",
        "there is {things} on {ground}",
        "on {ground} this picture shows {things}",
        "this photo shows {things} on {ground}",
    ),
}

WORDS = frozenset({*SHAPES, *COLOURS, *MATERIALS, *BACKGROUNDS, *PLACES, "small", "large", "an"}) | words_of(
    *(template for family in (_SHORT, _FULL) for group in family.values() for template in group),
    *map(place_phrase, PLACES),
    *RELATIONS,
    "and where is the",
)


def caption(
    scene: Scene, rng: np.random.Generator, *, length: Length = "medium", phrasing: Phrasing = "train"
) -> str:
    """Put a scene into words.

    Args:
        scene: The scene, with at least one thing.
        rng: Source of the order of the things, of the template and of what is left unsaid.
        length: Length of the caption.
        phrasing: Which family of templates is used; the two share no template.

    Returns:
        Lower-case words with single spaces, at most ``MAX_WORDS``.

    Raises:
        ValueError: If ``length`` or ``phrasing`` is unknown or the scene is empty.
    """
    check_choice("length", length, get_args(Length))
    check_choice("phrasing", phrasing, get_args(Phrasing))
    if not scene.things:
        raise ValueError("scene must hold at least one thing, got none")
    things = " and ".join(_phrase(thing, rng, length) for thing in shuffled(rng, scene.things))
    family = _SHORT if length == "short" else _FULL
    text = choose(rng, family[phrasing]).format(things=things, ground=background_phrase(scene))
    return _with_relations(text, scene, rng) if length == "long" else text


def background_phrase(scene: Scene) -> str:
    """Return the background as said after ``on``: ``"leaves"``, ``"a gradient"``."""
    kind = scene.background.kind
    return kind if kind.endswith("s") else with_article(kind)


def size_word(thing: Thing) -> str | None:
    """Return ``"small"``, ``"large"``, or nothing for a thing in between."""
    return "small" if thing.radius <= SMALL else "large" if thing.radius >= LARGE else None


def _phrase(thing: Thing, rng: np.random.Generator, length: Length) -> str:
    says_material = length != "short" or rng.random() < 0.3
    noun = describe(thing, ("shape", "colour", "material") if says_material else ("shape", "colour")).noun()
    if length != "long":
        return with_article(noun)
    size = size_word(thing)
    if size is not None and rng.random() < 0.8:
        noun = f"{size} {noun}"
    # of a thing in a corner both sides are said: "at the top left"
    places = [place for place in ("top", "bottom", "left", "right", "middle") if at(thing, place)]
    if places and rng.random() < 0.8:
        noun = f"{noun} {place_phrase(' '.join(places) if places != ['middle'] else 'middle')}"
    return with_article(noun)


def _with_relations(text: str, scene: Scene, rng: np.random.Generator) -> str:
    """Add one or two relations between different pairs of things, as far as the words last."""
    wanted = 1 + int(rng.integers(2))
    said: set[tuple[int, int]] = set()
    for i, relation, j in _relations(scene, rng):
        clause = " ".join(("the", _name(scene, i), "is", relation, "the", _name(scene, j)))
        longer = f"{text} {'and' if said else 'where'} {clause}"
        pair = (min(i, j), max(i, j))
        if pair in said or len(longer.split()) > MAX_WORDS:
            continue
        text = longer
        said.add(pair)
        if len(said) == wanted:
            break
    return text


def _name(scene: Scene, i: int) -> str:
    return describe(scene.things[i], ("shape", "colour")).noun()


def _relations(scene: Scene, rng: np.random.Generator) -> list[tuple[int, str, int]]:
    """Return all that can be said of pairs, in random order; what hides what comes first half of the time."""
    pairs = [(i, j) for i in range(len(scene.things)) for j in range(len(scene.things)) if i != j]
    depth = [
        (i, word, j) for i, j in pairs for word in ("in front of", "behind") if related(scene, i, word, j)
    ]
    flat = [
        (i, word, j) for i, j in pairs if (word := _direction(scene.things[i], scene.things[j])) is not None
    ]
    if rng.random() < 0.5:
        return shuffled(rng, depth) + shuffled(rng, flat)
    return shuffled(rng, depth + flat)


def _direction(one: Thing, other: Thing) -> str | None:
    """Return how one thing lies to another along the axis on which they are further apart."""
    dx, dy = other.x - one.x, other.y - one.y
    if max(abs(dx), abs(dy)) < MARGIN:
        return None
    if abs(dx) >= abs(dy):
        return "left of" if dx > 0 else "right of"
    return "above" if dy > 0 else "below"
