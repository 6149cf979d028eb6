# SPDX-License-Identifier: Apache-2.0
"""Expressions that pick out exactly one thing, by attribute, position or relation.

An expression is made by search and checked by ``resolve``, which knows nothing of how it was made. It may be
said only if the thing surely fits and every other surely does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from shapeworld.scene import Scene
from shapeworld.vocabulary import COLOURS, MATERIALS, SHAPES
from shapeworld.words import (
    MARGIN,
    PLACES,
    RELATIONS,
    Description,
    Phrasing,
    at,
    check_choice,
    choose,
    descriptions,
    matching,
    place_phrase,
    related,
    shuffled,
    unique_descriptions,
    words_of,
)

__all__ = ["EXTREMES", "KINDS", "WORDS", "Expression", "Kind", "Reference", "is_needed", "refer", "resolve"]

Kind = Literal["attribute", "position", "relation"]
KINDS: tuple[Kind, ...] = get_args(Kind)
EXTREMES = ("leftmost", "rightmost", "highest", "lowest")

_TEMPLATES: dict[Phrasing, tuple[str, ...]] = {
    "train": ("{thing}", "find {thing}", "where is {thing}", "which thing is {thing}"),
    "held_out": ("find where {thing} is", "which is {thing}", "find which thing is {thing}"),
}

WORDS = frozenset({*SHAPES, *COLOURS, *MATERIALS, *PLACES, *EXTREMES, "thing"}) | words_of(
    *(template for group in _TEMPLATES.values() for template in group), *map(place_phrase, PLACES), *RELATIONS
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """What an expression says, in parts."""

    description: Description
    """Attributes of the thing that is meant."""
    position: str | None = None
    """One of ``EXTREMES``, among what the description matches, or of ``words.PLACES``."""
    relation: str | None = None
    """One of ``words.RELATIONS``, in which the thing stands to the anchor."""
    anchor: Description | None = None
    """The other thing of the relation."""

    @property
    def kind(self) -> Kind:
        """How the thing is distinguished from the others."""
        return (
            "relation"
            if self.relation is not None
            else "position"
            if self.position is not None
            else "attribute"
        )

    def phrase(self) -> str:
        """Return the words: ``"the leftmost ring"``, ``"the ring left of the red square"``."""
        noun = self.description.noun()
        if self.relation is not None and self.anchor is not None:
            return f"the {noun} {self.relation} the {self.anchor.noun()}"
        if self.position in EXTREMES:
            return f"the {self.position} {noun}"
        return f"the {noun}" if self.position is None else f"the {noun} {place_phrase(self.position)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An expression for one thing of a scene."""

    text: str
    """The whole sentence."""
    expression: Expression
    """Its parts; ``expression.phrase()`` is the bare noun phrase in the sentence."""
    target: int
    """Index of the thing that is meant."""

    @property
    def kind(self) -> Kind:
        """How the thing is distinguished from the others."""
        return self.expression.kind


def resolve(expression: Expression, scene: Scene, *, certain: bool = False) -> tuple[int, ...]:
    """Return the things that an expression may mean.

    Args:
        expression: The referring expression.
        scene: The scene that it refers to.
        certain: Whether to exclude things that fit only if a difference below the margin is read kindly.

    Returns:
        Indices into ``scene.things``, ascending. The expression is unambiguous if both settings of
        ``certain`` give the same single index.
    """
    wanted = (True,) if certain else (True, None)
    return tuple(i for i in matching(expression.description, scene) if _fits(expression, scene, i) in wanted)


def refer(
    scene: Scene,
    rng: np.random.Generator,
    *,
    kind: Kind | None = None,
    target: int | None = None,
    phrasing: Phrasing = "train",
) -> Reference | None:
    """Make an expression that matches exactly one thing.

    Among the expressions for a thing those are preferred in which every word is needed, so that a
    similar thing differs in exactly that word.

    Args:
        scene: The scene; its (colour, shape) pairs must differ.
        rng: Source of all choices.
        kind: Kind of expression; any if ``None``.
        target: Index of the thing; any if ``None``.
        phrasing: Which family of sentences is used; the two share none.

    Returns:
        The reference, or ``None`` where the scene allows none of this kind, as for a relation in a scene of
        one thing. With ``kind=None`` there always is one.

    Raises:
        ValueError: If ``kind`` or ``phrasing`` is unknown or ``target`` out of range.
    """
    check_choice("phrasing", phrasing, get_args(Phrasing))
    if kind is not None:
        check_choice("kind", kind, KINDS)
    if target is not None and not 0 <= target < len(scene.things):
        raise ValueError(f"target must be below the {len(scene.things)} things of the scene, got {target}")
    kinds: list[Kind] = shuffled(rng, KINDS) if kind is None else [kind]
    for one_kind in kinds:
        for i in shuffled(rng, range(len(scene.things))) if target is None else [target]:
            expression = _search(scene, rng, one_kind, i)
            if expression is not None:
                text = choose(rng, _TEMPLATES[phrasing]).format(thing=expression.phrase())
                return Reference(text=text, expression=expression, target=i)
    return None


def is_needed(expression: Expression, scene: Scene) -> bool:
    """Return whether the expression means something else, or no one thing, with any of its parts less.

    The shape is not counted: as the noun of the phrase it may stand for plain ``"thing"``.
    """
    anchor = expression.anchor
    if anchor is not None and any(
        matching(anchor.without(name), scene) == matching(anchor, scene) for name in anchor.adjectives()
    ):
        return False
    meant = resolve(expression, scene)
    return all(resolve(shorter, scene) != meant for shorter in _shorter(expression))


def _shorter(expression: Expression) -> Iterator[Expression]:
    """Yield the expression without its position or relation and without each of its adjectives."""
    if expression.kind != "attribute":
        yield Expression(description=expression.description)
    for name in expression.description.adjectives():
        yield replace(expression, description=expression.description.without(name))


def _fits(expression: Expression, scene: Scene, i: int) -> bool | None:
    """Return whether position and relation hold of a thing that the description matches."""
    if expression.position in EXTREMES:
        return _is_extreme(expression, scene, i)
    if expression.position is not None:
        return at(scene.things[i], expression.position)
    if expression.relation is None or expression.anchor is None:
        return True
    anchors = [j for j in matching(expression.anchor, scene) if j != i]
    truths = [related(scene, i, expression.relation, j) for j in anchors]
    return True if True in truths else None if None in truths else False


def _is_extreme(expression: Expression, scene: Scene, i: int) -> bool | None:
    axis, sign = {"leftmost": ("x", 1), "rightmost": ("x", -1), "highest": ("y", 1), "lowest": ("y", -1)}[
        str(expression.position)
    ]
    rivals = [j for j in matching(expression.description, scene) if j != i]
    leads = [sign * (getattr(scene.things[j], axis) - getattr(scene.things[i], axis)) for j in rivals]
    return True if all(lead >= MARGIN for lead in leads) else None if min(leads) > -MARGIN else False


def _search(scene: Scene, rng: np.random.Generator, kind: Kind, target: int) -> Expression | None:
    """Return an unambiguous expression for a thing, one that needs all its words if there is any."""
    fallback: Expression | None = None
    for expression in _candidates(scene, rng, kind, target):
        # the candidates surely fit the target: what is left to see is that nothing else might
        if resolve(expression, scene) != (target,):
            continue
        if len(scene.things) == 1 or is_needed(expression, scene):
            return expression
        fallback = fallback or expression
    return fallback


def _candidates(scene: Scene, rng: np.random.Generator, kind: Kind, target: int) -> list[Expression]:
    """Return what might be said of a thing, in the order in which it is to be tried."""
    thing = scene.things[target]
    # with colour and shape named nothing is left to distinguish
    bases = [one for one in descriptions(thing) if one.colour is None or one.shape is None]
    if kind == "attribute":
        # in a scene of one thing no word is needed, and so any will do
        fitting = unique_descriptions(scene, target) if len(scene.things) > 1 else descriptions(thing)
        found = [Expression(description=one) for one in fitting if one.named()]
    elif kind == "position":
        places = [place for place in PLACES if at(thing, place)]
        found = [
            Expression(description=one, position=position)
            for one in bases
            for position in (*places, *(EXTREMES if len(matching(one, scene)) > 1 else ()))
        ]
    else:
        anchors = [
            (relation, choose(rng, unique_descriptions(scene, j)))
            for j in range(len(scene.things))
            if j != target
            for relation in RELATIONS
            if related(scene, target, relation, j)
        ]
        found = [
            Expression(description=one, relation=relation, anchor=anchor)
            for relation, anchor in anchors
            for one in bases
        ]
    found = shuffled(rng, found)
    if rng.random() < 0.7:  # rather a star than a thing
        found.sort(key=lambda one: one.description.shape is None)
    return found
