# SPDX-License-Identifier: Apache-2.0
import re
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from shapeworld.captions import MAX_WORDS, WORDS, Length, background_phrase, caption, size_word
from shapeworld.scene import Background, Scene, Thing, draw_scene, scene_rng
from shapeworld.words import Phrasing

LENGTHS, PHRASINGS = get_args(Length), get_args(Phrasing)


def thing(words: str, x: float, y: float, radius: float = 0.17) -> Thing:
    material, colour, shape = words.split()
    return Thing(shape=shape, colour=colour, material=material, x=x, y=y, radius=radius)


PAIR = Scene(
    background=Background(kind="gradient", seed=0),
    things=(thing("striped orange circle", 0.2, 0.2), thing("solid blue star", 0.8, 0.25, 0.25)),
)


def said(scene: Scene, *, length: Length, phrasing: Phrasing = "train", count: int = 300) -> set[str]:
    return {caption(scene, scene_rng(0, i), length=length, phrasing=phrasing) for i in range(count)}


def skeleton(text: str) -> str:
    """Return the sentence with lists of things, grounds and relations blotted out."""
    text = text.partition(" where ")[0]
    text = re.sub(r"on (a gradient|leaves|waves|clouds|tiles)", "on G", text)
    one = r"an? (?:\w+ ){1,3}(?:circle|star)(?: (?:at|in) the \w+(?: (?:left|right))?)?"
    return re.sub(rf"{one}(?: and {one})*", "T", text)


def test_short_says_colour_and_shape_and_sometimes_the_material():
    texts = said(PAIR, length="short")
    assert {"an orange circle and a blue star", "a blue star and an orange circle"} <= texts
    assert "a photo of a striped orange circle and a blue star" in texts
    assert all("gradient" not in text for text in texts)


def test_medium_says_every_material_and_the_ground():
    texts = said(PAIR, length="medium")
    assert "a striped orange circle and a solid blue star on a gradient" in texts
    for text in texts:
        assert all(part in text for part in ("a striped orange circle", "a solid blue star", "on a gradient"))


def test_long_says_size_place_and_relation():
    texts = " | ".join(said(PAIR, length="long"))
    assert "a large solid blue star at the top right" in texts
    assert "a striped orange circle at the top left" in texts
    assert "where the orange circle is left of the blue star" in texts
    assert "where the blue star is right of the orange circle" in texts
    for untrue in ("small", "large striped", "above", "below", "in front of", "behind", "middle", "bottom"):
        assert untrue not in texts


def test_long_says_what_hides_what():
    lapping = Scene(
        background=PAIR.background,
        things=(thing("striped orange circle", 0.4, 0.5), thing("solid blue star", 0.6, 0.5)),
    )
    texts = " | ".join(said(lapping, length="long"))
    assert "the blue star is in front of the orange circle" in texts
    assert "the orange circle is behind the blue star" in texts
    assert "circle is in front" not in texts


def test_of_two_relations_each_is_about_another_pair():
    three = Scene(background=PAIR.background, things=(*PAIR.things, thing("wavy red ring", 0.5, 0.8)))
    twice = 0
    for text in said(three, length="long"):
        clauses = re.split(" and the ", text.partition(" where ")[2])
        names = [frozenset(re.findall(r"(\w+) (?:circle|star|ring)", clause)) for clause in clauses]
        twice += len(names) == 2
        assert len(set(names)) == len(names) <= 2
    assert twice > 50


def test_one_thing_has_no_relations():
    alone = Scene(background=PAIR.background, things=PAIR.things[:1])
    assert all("where" not in text for text in said(alone, length="long"))


@pytest.mark.parametrize("length", LENGTHS)
def test_held_out_phrasing_uses_known_words_in_unknown_sentences(length: Length):
    scenes = [draw_scene(1, i) for i in range(40)] + [PAIR] * 200
    known = {
        word
        for each in LENGTHS
        for i, scene in enumerate(scenes)
        for word in caption(scene, scene_rng(2, i), length=each).split()
    }
    held_out = said(PAIR, length=length, phrasing="held_out")
    assert {word for text in held_out for word in text.split()} <= known
    train = {skeleton(text) for each in LENGTHS for text in said(PAIR, length=each)}
    assert not {skeleton(text) for text in held_out} & train


def test_all_words_and_no_others_are_said():
    texts = [
        caption(draw_scene(3, i), scene_rng(3, i), length=length, phrasing=phrasing)
        for i in range(150)
        for length in LENGTHS
        for phrasing in PHRASINGS
    ]
    assert {word for text in texts for word in text.split()} == WORDS


@pytest.mark.parametrize("length", LENGTHS)
def test_the_same_stream_gives_the_same_caption(length: Length):
    one, two, other = (caption(draw_scene(4, 1), scene_rng(4, i), length=length) for i in (1, 1, 2))
    assert one == two != other


def test_six_things_fit_into_a_text_encoder():
    where = [(0.12, 0.12), (0.5, 0.12), (0.88, 0.12), (0.12, 0.88), (0.5, 0.88), (0.88, 0.88)]
    colours = ("red", "orange", "green", "blue", "pink", "white")
    six = Scene(
        background=PAIR.background,
        things=tuple(thing(f"solid {c} ring", x, y, 0.1) for c, (x, y) in zip(colours, where, strict=True)),
    )
    lengths = sorted(len(text.split()) for text in said(six, length="long", count=500))
    assert lengths[-1] <= MAX_WORDS
    assert lengths[-1] > MAX_WORDS - 5


def test_sizes_leave_a_gap():
    radii = np.linspace(0.08, 0.38, 31)
    words = [size_word(thing("solid red star", 0.5, 0.5, radius)) for radius in radii]
    assert [one for one, two in pairwise(words) if one != two] == ["small", None]
    assert max(np.diff([r for r, word in zip(radii, words, strict=True) if word is not None])) > 0.04


def test_grounds_of_one_piece_have_an_article():
    kinds = ("leaves", "gradient", "waves", "clouds", "tiles")
    scenes = [Scene(background=Background(kind=kind, seed=0), things=()) for kind in kinds]
    assert [background_phrase(s) for s in scenes] == ["leaves", "a gradient", "waves", "clouds", "tiles"]


def test_bad_arguments_are_named():
    rng = scene_rng(0, 0)
    with pytest.raises(ValueError, match="length must be one of short, medium, long, got 'tiny'"):
        caption(PAIR, rng, length="tiny")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="phrasing must be one of train, held_out, got 'test'"):
        caption(PAIR, rng, phrasing="test")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="scene must hold at least one thing"):
        caption(Scene(background=PAIR.background, things=()), rng)
