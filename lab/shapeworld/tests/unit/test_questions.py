# SPDX-License-Identifier: Apache-2.0
from typing import get_args

import pytest
from shapeworld.questions import KINDS, WORDS, Kind, Query, answer, ask
from shapeworld.scene import Background, Scene, Thing, draw_scene, scene_rng
from shapeworld.words import Description, Phrasing

GROUND = Background(kind="tiles", seed=0)
PHRASINGS = get_args(Phrasing)


def thing(words: str, x: float, y: float) -> Thing:
    material, colour, shape = words.split()
    return Thing(shape=shape, colour=colour, material=material, x=x, y=y, radius=0.12)


THREE = Scene(
    background=GROUND,
    things=(
        thing("striped red star", 0.2, 0.3),
        thing("dotted blue star", 0.5, 0.75),
        thing("dotted red ring", 0.8, 0.33),
    ),
)
ALONE = Scene(background=GROUND, things=THREE.things[:1])
STAR, RING, RED, BLUE = (
    Description(**{k: v})
    for k, v in (("shape", "star"), ("shape", "ring"), ("colour", "red"), ("colour", "blue"))
)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query(kind="count"), "three"),
        (Query(kind="count", subject=STAR), "two"),
        (Query(kind="count", subject=Description(shape="cross")), "zero"),
        (Query(kind="existence", subject=Description(shape="ring", colour="red")), "yes"),
        (Query(kind="existence", subject=Description(shape="ring", colour="blue")), "no"),
        (Query(kind="colour", subject=RING), "red"),
        (Query(kind="shape", subject=BLUE), "star"),
        (Query(kind="material", subject=BLUE), "dotted"),
        (Query(kind="colour", subject=STAR), None),
        (Query(kind="colour", subject=Description(shape="cross")), None),
        (Query(kind="position", subject=RING, word="right"), "yes"),
        (Query(kind="position", subject=RING, word="left"), "no"),
        (Query(kind="position", subject=RING, word="top"), None),
        (Query(kind="relation", subject=BLUE, word="below", other=RING), "yes"),
        (Query(kind="relation", subject=BLUE, word="right of", other=RING), "no"),
        (Query(kind="relation", subject=BLUE, word="right of", other=RED), None),
        (Query(kind="relation", subject=RING, word="above", other=Description(material="striped")), None),
        (Query(kind="background"), "tiles"),
        (Query(kind="comparison", subject=RED, word="more", other=BLUE), "yes"),
        (Query(kind="comparison", subject=RED, word="fewer", other=BLUE), "no"),
        (Query(kind="comparison", subject=RED, word="more", other=STAR), "no"),
        (Query(kind="comparison", subject=RED, word="fewer", other=STAR), "no"),
    ],
)
def test_queries_are_answered(query: Query, expected: str | None):
    assert answer(query, THREE) == expected


def test_more_than_six_are_not_counted():
    assert answer(Query(kind="count"), Scene(background=GROUND, things=THREE.things[:1] * 7)) is None


@pytest.mark.parametrize(
    ("kind", "beginnings"),
    [
        ("count", {"how many things", "how many stars", "how many red", "how many dotted"}),
        ("existence", {"is there a"}),
        ("colour", {"what colour is", "what is the"}),
        ("shape", {"what shape is", "what is the"}),
        ("material", {"what material is", "what is the"}),
        ("position", {"is the star", "is the ring", "is the blue", "is the striped"}),
        ("relation", {"is the ring", "is the blue", "is the striped"}),
        ("background", {"what is the"}),
        ("comparison", {"are there more", "are there fewer"}),
    ],
)
def test_every_kind_is_asked_in_its_words(kind: Kind, beginnings: set[str]):
    asked = [ask(THREE, scene_rng(0, i), kind=kind) for i in range(60)]
    found: set[str] = set()
    for question in asked:
        assert question is not None
        assert question.kind == kind
        found.add(" ".join(question.text.split()[:3]))
    assert found & beginnings == beginnings - {"is the star"}


@pytest.mark.parametrize("kind", ["existence", "position", "relation", "comparison"])
def test_yes_and_no_are_equally_likely(kind: Kind):
    scenes = [draw_scene(1, i) for i in range(600)]
    asked = [ask(scene, scene_rng(1, i), kind=kind) for i, scene in enumerate(scenes)]
    answers = [question.answer for question in asked if question is not None]
    assert set(answers) == {"yes", "no"}
    # four standard deviations of a fair coin
    assert abs(answers.count("yes") - len(answers) / 2) < 2 * len(answers) ** 0.5


def test_absent_things_are_often_mixtures_of_those_present():
    mixed = 0
    for i in range(200):
        question = ask(THREE, scene_rng(2, i), kind="existence")
        assert question is not None
        words = {"star", "ring", "red", "blue", "striped", "dotted", "thing"}
        mixed += question.answer == "no" and set(question.query.subject.noun().split()) <= words
    assert mixed > 20


def test_what_a_scene_cannot_answer_is_not_asked():
    assert ask(ALONE, scene_rng(0, 0), kind="relation") is None
    twins = Scene(
        background=GROUND, things=(thing("solid red star", 0.2, 0.5), thing("solid blue star", 0.8, 0.5))
    )
    assert ask(twins, scene_rng(0, 0), kind="colour") is None
    assert ask(twins, scene_rng(0, 0), kind="shape") is not None


def test_some_question_is_always_found():
    assert all(ask(ALONE, scene_rng(0, i)) is not None for i in range(50))


def test_held_out_sentences_are_new_and_their_words_are_not():
    def texts(phrasing: Phrasing) -> dict[str, str]:
        made = [
            (kind, ask(THREE, scene_rng(3, i), kind=kind, phrasing=phrasing))
            for kind in KINDS
            for i in range(80)
        ]
        return {one.text: kind for kind, one in made if one is not None}

    train, held_out = texts("train"), texts("held_out")
    assert not set(train) & set(held_out)
    first = ("how", "is there", "is the", "what", "are")
    assert all(text.startswith(first) for text in train)
    assert all(not text.startswith(first) for text in held_out)
    known = {word for text in train for word in text.split()}
    # the only words that could be missing are values which these draws did not name
    assert {word for text in held_out for word in text.split()} - known <= WORDS - {
        "in",
        "there",
        "of",
        "this",
    }


def test_all_words_and_no_others_are_said():
    said: set[str] = set()
    scenes = [draw_scene(4, i) for i in range(500)]
    scenes += [scene for scene in scenes if len(scene.things) == 6] * 20
    for i, scene in enumerate(scenes * 3):
        question = ask(scene, scene_rng(4, i), phrasing=PHRASINGS[i % 2])
        assert question is not None
        assert " " not in question.answer
        said.update(question.text.split(), [question.answer])
    assert said == WORDS


def test_the_same_stream_gives_the_same_question():
    one, two = (ask(THREE, scene_rng(5, 5)) for _ in range(2))
    assert one == two
    assert len({str(ask(THREE, scene_rng(5, i))) for i in range(20)}) > 5


def test_bad_arguments_are_named():
    rng = scene_rng(0, 0)
    with pytest.raises(ValueError, match=r"kind must be one of count, .*, got 'size'"):
        ask(THREE, rng, kind="size")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="phrasing must be one of train, held_out, got 'val'"):
        ask(THREE, rng, phrasing="val")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="scene must hold at least one thing"):
        ask(Scene(background=GROUND, things=()), rng)
