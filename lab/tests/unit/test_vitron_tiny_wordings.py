# SPDX-License-Identifier: Apache-2.0
"""Wordings: enough of each family, held-out ones apart, one meaning each, rewordings that keep it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from string import Formatter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recipes.vitron_tiny import wordings
from recipes.vitron_tiny.scenes import Draw
from recipes.vitron_tiny.wordings import CHAT, FOLLOW_UPS, SEGMENT, WORDINGS, Family, said, worded
from recipes.vitron_tiny.wordings.forms import FRAMES, PLACES, expand, framed
from shapeworld.words import Phrasing
from vitron.demo.painters.words import read_phrase

THE, AN = "the red circle", "a red circle"
SLOTS = {
    **dict.fromkeys(("thing", "subject"), THE),
    **{"things": "red circles", "other": "blue stars", "order": "leftmost", "verb": "appear", "end": "last"},
    **{"front": "red", "back": "blue", "to": "blue", "way": "to the left", "tag": "<module>", "word": "more"},
    "new": AN,
}
OWN_SLOTS = {
    "DRAW": {"things": f"{AN} at the left"},
    "FILM": {"things": f"{AN} moving to the left"},
    "EDITS.add": {"thing": AN, "to": "at the left"},
    "EDITS.replace": {"to": "a blue star"},
    "EDITS.move": {"to": "to the left"},
    "EDITS.restyle": {"to": "sepia"},
    "CHAINS.draw_animate": {"to": "to the left"},
    "FOLLOW_UPS.replace_it": {"to": "a blue star"},
    "FOLLOW_UPS.move_it": {"to": "to the left"},
}
# families that mean the same where their texts are equal
MEANINGS = {"FOLLOW_UPS.what_is_it": "REGION", "WORDINGS.position": "claim", "WORDINGS.relation": "claim"}


def families() -> Iterator[tuple[str, Family]]:
    for name in wordings.__all__:
        value = getattr(wordings, name)
        if isinstance(value, Family):
            yield name, value
        elif isinstance(value, dict):
            for key, each in value.items():
                yield f"{name}.{key}", each if isinstance(each, Family) else each[0]


FAMILIES = dict(families())


def bare(text: str) -> str:
    return re.sub(r"[^\w{}<>]+", " ", text.replace("'", "")).lower().strip()


Core = tuple[str, str, str]
"""A bare form, the kind whose frames stand around it, and the medium that a place at its end names."""


def cores(text: str) -> set[Core]:
    """Return the forms of which a bare text may have been made."""
    found = set[Core]()
    for kind, frames in FRAMES.items():
        inner = {text} if kind != "fixed" else set[str]()
        inner |= {left for first, last in map(bare_ends, frames) if (left := between(text, first, last))}
        found |= {(each, kind, "") for each in inner}
        for place, ends in PLACES.items():
            found |= {
                (left, kind, place)
                for each in inner
                for end in ends
                if (left := between(each, "", f" {bare(end)}"))
            }
    return found


def own_cores(family: Family) -> Iterator[tuple[str, Core]]:
    """Yield each form of training with what :func:`cores` finds in the sentences made of it."""
    for form, kind in zip(family.train, family.kinds, strict=True):
        yield form, (bare(form), kind, "")
        if form.endswith(("{thing}", "{things}", "{to}", "{subject}")):
            yield form, (bare(form), kind, family.place)


@cache
def bare_ends(frame: str) -> tuple[str, str]:
    first, last = map(bare, frame.split("{}"))
    return first and f"{first} ", last and f" {last}"


def between(text: str, first: str, last: str) -> str:
    if not (text.startswith(first) and text.endswith(last)):
        return ""
    return text[len(first) : len(text) - len(last)]


def draw_of(seed: int, phrasing: Phrasing = "train") -> Draw:
    rng = np.random.default_rng(seed)
    return Draw(seed=0, number=0, rng=rng, split="train", phrasing=phrasing, side=64)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_are_large_and_their_sides_apart(name: str) -> None:
    family = FAMILIES[name]
    assert len(set(family.train)) == len(family.train) == len(family.kinds) >= 40
    assert len(set(family.held_out)) == len(family.held_out) >= 10
    shown = {core for _, core in own_cores(family)}
    assert not {bare(form) for form in family.held_out} & set(map(bare, family.train))
    assert not [form for form in family.held_out if cores(bare(form)) & shown]


@pytest.mark.parametrize("name", FAMILIES)
def test_forms_have_the_slots_of_their_family(name: str) -> None:
    family = FAMILIES[name]
    slots = [
        {slot for _, slot, _, _ in Formatter().parse(form) if slot is not None}
        for form in (*family.train, *family.held_out)
    ]
    assert all(each == slots[0] for each in slots)
    assert all(re.fullmatch(r"[\w ,.:;?'&+{}-]+", form) for form in (*family.train, *family.held_out))
    assert not [form for form in family.train if len(form.split()) > 18]


def test_no_text_has_two_meanings() -> None:
    meanings = defaultdict[str, set[str]](set)
    framed_forms = dict[Core, str]()
    for name, family in FAMILIES.items():
        slots, meaning = SLOTS | OWN_SLOTS.get(name, {}), MEANINGS.get(name, name)
        for form in (*family.train, *family.held_out):
            meanings[bare(form.format(**slots))].add(meaning)
        for form, (_, kind, place) in own_cores(family):
            framed_forms[bare(form.format(**slots)), kind, place] = meaning
    assert not {text: names for text, names in meanings.items() if len(names) > 1}
    # nor is a framed text of one family a text of another
    assert not [
        (text, framed_forms[core])
        for text, names in meanings.items()
        for core in cores(text) & framed_forms.keys()
        if framed_forms[core] not in names
    ]


def test_cores_take_frames_and_places_off() -> None:
    assert ("mark the red circle", "request", "image") in cores(
        "can you please mark the red circle in this photo"
    )


def test_expand_nested() -> None:
    assert list(expand("(a|b (c|d)) e\n\n  f  ")) == ["a e", "b c e", "a e", "b d e", "f"]


def test_frames_keep_who_acts() -> None:
    assert "can you show me {thing}" in framed("show me {thing}", "request")
    assert not [
        text for text in framed("show me {thing}", "request") if text.startswith(("help me", "I want to"))
    ]
    assert "let's mark {thing} in this photo" in framed("mark {thing}", "request", "image")


@given(st.sampled_from(sorted(FAMILIES)), st.integers(0, 2**32), st.sampled_from(["train", "held_out"]))
def test_worded_fills_every_slot(name: str, seed: int, phrasing: Phrasing) -> None:
    slots = SLOTS | OWN_SLOTS.get(name, {})
    text = worded(draw_of(seed, phrasing), FAMILIES[name], **slots)
    assert text == worded(draw_of(seed, phrasing), FAMILIES[name], **slots)
    assert text.strip() == text
    assert "  " not in text
    assert not re.search(r"[{}|()]", text)


def test_typing_leaves_the_object_alone() -> None:
    texts = [worded(draw_of(seed), SEGMENT, thing="a quux") for seed in range(3000)]
    assert all("a quux" in text.lower() for text in texts)
    known = {
        word
        for form, kind in zip(SEGMENT.train, SEGMENT.kinds, strict=True)
        for text in framed(form, kind, SEGMENT.place)
        for word in re.findall(r"[a-z']+", text.lower())
    }
    words = [set(re.findall(r"[a-z']+", text.lower())) - known - {"quux"} for text in texts]
    share = sum(bool(each) for each in words) / len(texts)
    assert 0.01 < share < 0.15


def test_held_out_texts_are_none_of_training() -> None:
    family = FOLLOW_UPS["remove_it"]
    held_out = {bare(worded(draw_of(seed, "held_out"), family)) for seed in range(200)}
    assert held_out <= {bare(form) for form in family.held_out}


@pytest.mark.parametrize("kind", CHAT)
def test_replies_are_sentences(kind: str) -> None:
    _, reply = CHAT[kind]
    assert reply[0].isupper()
    assert reply[-1] in ".!?"
    assert not re.search(r"picture|clip", reply)


PHRASES = (
    *("the red circle", "the leftmost star", "the small blue square", "the highest yellow cross"),
    *("the lowest thing", "the purple triangle", "the rightmost grey square"),
)


@given(st.sampled_from(PHRASES), st.integers(0, 2**32))
def test_said_keeps_the_meaning(phrase: str, seed: int) -> None:
    """The toy specialists read the same object from other words, wherever they know them."""
    text = said(draw_of(seed), phrase)
    meant, found = read_phrase(phrase), read_phrase(text)
    assert found.colour == meant.colour
    assert found.shape in (meant.shape, None)
    assert found.shape or re.search("round|circular|triangular|block|plus|object|item|shape|thing", text)


@pytest.mark.parametrize(
    ("phrase", "some"),
    [
        ("this", {"this", "what I marked"}),
        ("grey", {"black and white"}),
        ("all circles", {"all circles", "every circle", "each of the circles"}),
        ("all crosses", {"the crosses", "every cross"}),
        ("at the top left", {"in the top left corner"}),
        ("to the left", {"left", "towards the left"}),
        ("the star left of the blue cross", {"the star to the left of the blue cross"}),
        ("the thing in the middle", {"the object in the middle", "the thing in the centre"}),
    ],
)
def test_said_has_other_words(phrase: str, some: set[str]) -> None:
    found = {said(draw_of(seed), phrase) for seed in range(600)}
    assert some <= found
    assert phrase in found


def test_said_leaves_unknown_words() -> None:
    assert {said(draw_of(seed), "the tall house") for seed in range(50)} == {"the tall house"}


def test_questions_have_all_kinds() -> None:
    kinds = {"count", "existence", "colour", "shape", "material", "position", "relation", "comparison"}
    assert set(WORDINGS) == kinds
