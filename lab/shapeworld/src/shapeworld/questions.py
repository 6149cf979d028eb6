# SPDX-License-Identifier: Apache-2.0
"""Questions about a scene with answers of one word.

A question is a structured query and its sentence; ``answer`` evaluates the query on any scene, such as one
that was edited. Questions to be answered by yes or no are drawn so that both answers are equally likely.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, TypeVar, get_args

import numpy as np

from shapeworld.scene import Scene
from shapeworld.vocabulary import BACKGROUNDS, COLOURS, MATERIALS, SHAPES, Attribute
from shapeworld.words import (
    ANYTHING,
    ATTRIBUTES,
    NUMBERS,
    PLACES,
    RELATIONS,
    Description,
    Phrasing,
    at,
    check_choice,
    choose,
    describe,
    descriptions,
    matching,
    names_unseen_pair,
    place_phrase,
    pluralise,
    related,
    shuffled,
    spoken,
    unique_descriptions,
    with_article,
    words_of,
)

__all__ = ["KINDS", "WORDS", "Kind", "Query", "Question", "answer", "ask", "slots"]

Kind = Literal[
    "count", "existence", "colour", "shape", "material", "position", "relation", "background", "comparison"
]
KINDS: tuple[Kind, ...] = get_args(Kind)

_T = TypeVar("_T")

_ATTRIBUTE = {
    "train": ("what {word} is the {subject}", "what is the {word} of the {subject}"),
    "held_out": ("the {subject} is what {word}", "of what {word} is the {subject}"),
}
_CLAIM = {
    "train": ("is the {subject} {word}", "is the {subject} {word} in this picture"),
    "held_out": ("in this picture is the {subject} {word}",),
}
_TEMPLATES: dict[Kind, dict[str, tuple[str, ...]]] = {
    "count": {
        "train": ("how many {subject} are there", "how many {subject} are in this picture"),
        "held_out": ("there are how many {subject}", "in this picture how many {subject} are there"),
    },
    "existence": {
        "train": ("is there {subject}", "is there {subject} in this picture"),
        "held_out": ("in this picture is there {subject}", "is {subject} there"),
    },
    "colour": _ATTRIBUTE,
    "shape": _ATTRIBUTE,
    "material": _ATTRIBUTE,
    "position": _CLAIM,
    "relation": _CLAIM,
    "background": {
        "train": ("what is the background", "what is the background of this picture"),
        "held_out": ("in this picture what is the background", "the background is what"),
    },
    "comparison": {
        "train": (
            "are there {word} {subject} than {other}",
            "are there {word} {subject} than {other} in this picture",
        ),
        "held_out": ("in this picture are there {word} {subject} than {other}",),
    },
}

WORDS = frozenset(
    {*SHAPES, *COLOURS, *MATERIALS, *BACKGROUNDS, *PLACES, *NUMBERS, *ATTRIBUTES, "thing", "things"}
    | {*map(pluralise, SHAPES), "a", "an", "the", "more", "fewer", "yes", "no"}
) | words_of(
    *(sentence for family in _TEMPLATES.values() for group in family.values() for sentence in group),
    *map(place_phrase, PLACES),
    *RELATIONS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a question asks, in parts."""

    kind: Kind
    """What is asked for."""
    subject: Description = ANYTHING
    """What is counted or looked for, or the one thing that is spoken of."""
    word: str | None = None
    """The place, the relation, or ``"more"`` or ``"fewer"``."""
    other: Description | None = None
    """The other thing of a relation, or what is counted second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question with its answer."""

    text: str
    """The sentence, without a question mark."""
    answer: str
    """One word."""
    query: Query
    """The parts of the question."""

    @property
    def kind(self) -> Kind:
        """What is asked for."""
        return self.query.kind


def answer(query: Query, scene: Scene) -> str | None:
    """Answer a query.

    Args:
        query: The question.
        scene: The scene that it asks about.

    Returns:
        One word, or ``None`` where the question has no answer: the thing it speaks of is not there or not the
        only one, the claim is too close to call, or more than six things are counted.
    """
    found = matching(query.subject, scene)
    if query.kind == "background":
        return scene.background.kind
    if query.kind == "count":
        return NUMBERS[len(found)] if len(found) < len(NUMBERS) else None
    if query.kind == "existence":
        return "yes" if found else "no"
    others = () if query.other is None else matching(query.other, scene)
    if query.kind == "comparison":
        ahead = len(found) - len(others)
        return "yes" if (ahead if query.word == "more" else -ahead) > 0 else "no"
    if len(found) != 1:
        return None
    thing = scene.things[found[0]]
    if query.kind == "position":
        truth = at(thing, str(query.word))
    elif query.kind == "relation":
        truth = related(scene, found[0], str(query.word), others[0]) if len(others) == 1 else None
    else:
        return str(getattr(thing, query.kind))
    return None if truth is None else "yes" if truth else "no"


def ask(
    scene: Scene, rng: np.random.Generator, *, kind: Kind | None = None, phrasing: Phrasing = "train"
) -> Question | None:
    """Ask a question that the scene answers.

    Args:
        scene: The scene, with at least one thing.
        rng: Source of all choices.
        kind: Kind of question; any if ``None``.
        phrasing: Which family of sentences is used; the two share none.

    Returns:
        The question, or ``None`` where the scene allows none of this kind, as for a relation in a scene of
        one thing. With ``kind=None`` there always is one.

    Raises:
        ValueError: If ``kind`` or ``phrasing`` is unknown or the scene is empty.
    """
    check_choice("phrasing", phrasing, get_args(Phrasing))
    if kind is not None:
        check_choice("kind", kind, KINDS)
    if not scene.things:
        raise ValueError("scene must hold at least one thing, got none")
    kinds: list[Kind] = shuffled(rng, KINDS) if kind is None else [kind]
    for one_kind in kinds:
        query = _MAKERS[one_kind](scene, rng, one_kind)
        reply = None if query is None else answer(query, scene)
        if query is not None and reply is not None:
            return Question(text=_say(query, rng, phrasing), answer=reply, query=query)
    return None


def slots(query: Query) -> dict[str, str]:
    """Return what a sentence about a query is filled with.

    Returns:
        ``subject``: what is spoken of, with its article where it is looked for and in the plural where it is
        counted; ``word``: the attribute, the place, the relation with its other thing, or ``"more"`` or
        ``"fewer"``; ``other``: what is counted second.
    """
    kind, word = query.kind, query.word
    plural = kind in ("count", "comparison")
    subject = query.subject.noun(plural=plural)
    other = "" if query.other is None else query.other.noun(plural=plural)
    if kind == "existence":
        subject = with_article(subject)
    if kind == "position":
        word = place_phrase(str(word))
    elif kind == "relation":
        word = f"{word} the {other}"
    elif kind in ATTRIBUTES:
        word = kind
    return {"subject": subject, "word": word or "", "other": other}


def _say(query: Query, rng: np.random.Generator, phrasing: Phrasing) -> str:
    return choose(rng, _TEMPLATES[query.kind][phrasing]).format(**slots(query))


def _background(scene: Scene, rng: np.random.Generator, kind: Kind) -> Query:
    return Query(kind=kind)


def _count(scene: Scene, rng: np.random.Generator, kind: Kind) -> Query:
    what = rng.random()
    if what < 0.15:
        return Query(kind=kind)
    if what < 0.4:
        return Query(kind=kind, subject=_elsewhere(scene, rng, 1))
    return Query(kind=kind, subject=describe(choose(rng, scene.things), (choose(rng, spoken(scene)),)))


def _existence(scene: Scene, rng: np.random.Generator, kind: Kind) -> Query:
    size = 1 + int(rng.integers(len(spoken(scene))))
    if rng.random() < 0.5:
        return Query(kind=kind, subject=describe(choose(rng, scene.things), _some_names(rng, scene, size)))
    return Query(kind=kind, subject=_elsewhere(scene, rng, size))


def _some_names(rng: np.random.Generator, scene: Scene, size: int) -> tuple[Attribute, ...]:
    names = spoken(scene)
    return tuple(names[i] for i in rng.permutation(len(names))[:size])


def _elsewhere(scene: Scene, rng: np.random.Generator, size: int) -> Description:
    """Return a description that nothing matches, its attributes taken from the scene where that can be."""
    while True:
        named: dict[str, str] = {
            name: getattr(choose(rng, scene.things), name)
            if rng.random() < 0.8
            else choose(rng, scene.values[name])
            for name in _some_names(rng, scene, size)
        }
        description = Description(**{name: word for name, word in named.items() if word})
        if not matching(description, scene) and not names_unseen_pair(description, scene):
            return description


def _attribute(scene: Scene, rng: np.random.Generator, kind: Kind) -> Query | None:
    """Ask for an attribute of a thing that the other two single out, or fewer if they do."""
    asked = next(name for name in ATTRIBUTES if name == kind)
    for i in shuffled(rng, range(len(scene.things))):
        if not getattr(scene.things[i], asked):
            continue
        candidates = [one for one in descriptions(scene.things[i]) if asked not in one.named()]
        subjects = [one for one in candidates if matching(one, scene) == (i,)]
        if subjects:
            return Query(kind=kind, subject=choose(rng, subjects))
    return None


def _position(scene: Scene, rng: np.random.Generator, kind: Kind) -> Query | None:
    pairs = [(i, place) for i in range(len(scene.things)) for place in PLACES]
    picked = _balanced(rng, pairs, lambda pair: at(scene.things[pair[0]], pair[1]))
    if picked is None:
        return None
    return Query(kind=kind, subject=choose(rng, unique_descriptions(scene, picked[0])), word=picked[1])


def _relation(scene: Scene, rng: np.random.Generator, kind: Kind) -> Query | None:
    pairs = [(i, j) for i in range(len(scene.things)) for j in range(len(scene.things)) if i != j]
    # whether one thing hides another is asked only of two that do
    claims = [
        (i, word, j)
        for i, j in pairs
        for word in RELATIONS
        if word in RELATIONS[:4] or related(scene, i, word, j) or related(scene, j, word, i)
    ]
    picked = _balanced(rng, claims, lambda claim: related(scene, *claim))
    if picked is None:
        return None
    i, word, j = picked
    subject, other = (choose(rng, unique_descriptions(scene, one)) for one in (i, j))
    return Query(kind=kind, subject=subject, word=word, other=other)


def _comparison(scene: Scene, rng: np.random.Generator, kind: Kind) -> Query | None:
    name = choose(rng, spoken(scene))
    here = tuple(dict.fromkeys(str(getattr(thing, name)) for thing in scene.things if getattr(thing, name)))
    words = scene.values[name]
    pools = (words,) if rng.random() < 0.3 else (here, words)
    for pool in pools:
        queries = [
            Query(
                kind=kind, subject=Description(**{name: one}), word=word, other=Description(**{name: other})
            )
            for one, other in permutations(pool, 2)
            if one in here or other in here
            for word in ("more", "fewer")
        ]
        picked = _balanced(rng, queries, lambda query: answer(query, scene) == "yes")
        if picked is not None:
            return picked
    return None


def _balanced(
    rng: np.random.Generator, options: Sequence[_T], truth: Callable[[_T], bool | None]
) -> _T | None:
    """Return a true or a false option, both equally likely, or nothing if the scene lacks either."""
    judged = [(option, truth(option)) for option in options]
    sides = [[option for option, known in judged if known is side] for side in (True, False)]
    return choose(rng, sides[int(rng.integers(2))]) if all(sides) else None


_MAKERS: dict[Kind, Callable[[Scene, np.random.Generator, Kind], Query | None]] = {
    "count": _count,
    "existence": _existence,
    "colour": _attribute,
    "shape": _attribute,
    "material": _attribute,
    "position": _position,
    "relation": _relation,
    "background": _background,
    "comparison": _comparison,
}
