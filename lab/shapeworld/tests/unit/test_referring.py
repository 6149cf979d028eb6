# SPDX-License-Identifier: Apache-2.0
import pytest
from shapeworld.referring import KINDS, WORDS, Expression, Kind, is_needed, refer, resolve
from shapeworld.scene import Background, Scene, Thing, draw_scene, scene_rng
from shapeworld.words import Description

GROUND = Background(kind="tiles", seed=0)


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
STAR, RING, RED, THING = (
    Description(shape="star"),
    Description(shape="ring"),
    Description(colour="red"),
    Description(),
)


@pytest.mark.parametrize(
    ("expression", "phrase", "meant"),
    [
        (Expression(description=STAR), "the star", (0, 1)),
        (Expression(description=RING), "the ring", (2,)),
        (Expression(description=STAR, position="leftmost"), "the leftmost star", (0,)),
        (Expression(description=THING, position="rightmost"), "the rightmost thing", (2,)),
        (Expression(description=STAR, position="lowest"), "the lowest star", (1,)),
        (Expression(description=RED, position="right"), "the red thing at the right", (2,)),
        (Expression(description=RED, position="middle"), "the red thing in the middle", ()),
        (
            Expression(description=STAR, relation="above", anchor=Description(colour="blue")),
            "the star above the blue thing",
            (0,),
        ),
        (Expression(description=STAR, relation="left of", anchor=RING), "the star left of the ring", (0, 1)),
        (
            Expression(description=STAR, relation="in front of", anchor=RING),
            "the star in front of the ring",
            (),
        ),
    ],
)
def test_expressions_are_said_and_resolved(expression: Expression, phrase: str, meant: tuple[int, ...]):
    assert expression.phrase() == phrase
    assert resolve(expression, THREE) == resolve(expression, THREE, certain=True) == meant


def test_differences_below_the_margin_fit_but_not_for_certain():
    highest = Expression(description=RED, position="highest")  # the ring is 0.03 lower than the star
    assert resolve(highest, THREE) == (0, 2)
    assert resolve(highest, THREE, certain=True) == ()
    above = Expression(description=STAR, relation="above", anchor=RING)
    assert resolve(above, THREE) == (0,)
    assert resolve(above, THREE, certain=True) == ()
    near_the_top = Scene(background=GROUND, things=(thing("solid red star", 0.5, 0.36),))
    top = Expression(description=STAR, position="top")
    assert (resolve(top, near_the_top), resolve(top, near_the_top, certain=True)) == ((0,), ())


def test_a_thing_is_not_its_own_anchor():
    assert resolve(Expression(description=STAR, relation="above", anchor=STAR), THREE) == (0,)


@pytest.mark.parametrize(
    ("expression", "needed"),
    [
        (Expression(description=Description(shape="star", colour="blue")), True),
        (Expression(description=Description(shape="ring", colour="red")), False),
        (Expression(description=STAR, position="leftmost"), True),
        (Expression(description=RING, position="right"), False),
        (Expression(description=Description(shape="star", material="striped"), position="left"), False),
        (
            Expression(description=STAR, relation="above", anchor=Description(shape="star", colour="blue")),
            True,
        ),
        (Expression(description=RED, relation="left of", anchor=RING), True),
        (
            Expression(description=RED, relation="left of", anchor=Description(shape="ring", colour="red")),
            False,
        ),
    ],
)
def test_a_word_is_needed_if_without_it_another_thing_is_meant(expression: Expression, needed: bool):
    assert is_needed(expression, THREE) is needed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", range(3))
def test_every_thing_is_told_from_its_lookalikes_in_every_way(kind: Kind, target: int):
    for i in range(20):
        reference = refer(THREE, scene_rng(0, i), kind=kind, target=target)
        assert reference is not None
        assert (reference.kind, reference.target) == (kind, target)
        assert reference.expression.phrase() in reference.text
        assert resolve(reference.expression, THREE) == (target,)
        assert is_needed(reference.expression, THREE)


def test_a_scene_of_one_thing_has_no_relation():
    alone = Scene(background=GROUND, things=THREE.things[:1])
    assert refer(alone, scene_rng(0, 0), kind="relation") is None
    texts = {one.text for i in range(100) if (one := refer(alone, scene_rng(0, i), kind="attribute"))}
    assert {"the star", "the red star"} <= texts


def test_held_out_sentences_are_new_and_their_words_are_not():
    def sentences(phrasing: str) -> set[str]:
        made = [
            refer(THREE, scene_rng(1, i), kind="attribute", target=1, phrasing=phrasing)  # pyright: ignore[reportArgumentType]
            for i in range(200)
        ]
        return {one.text.replace(one.expression.phrase(), "T") for one in made if one is not None}

    train, held_out = sentences("train"), sentences("held_out")
    assert len(train) == 4
    assert len(held_out) == 3
    assert not train & held_out
    assert {word for text in held_out for word in text.split()} <= {
        word for text in train for word in text.split()
    }


def test_all_words_and_no_others_are_said():
    said: set[str] = set()
    for i in range(900):
        reference = refer(draw_scene(2, i), scene_rng(2, i), phrasing="train" if i % 4 else "held_out")
        assert reference is not None
        said.update(reference.text.split())
    assert said == WORDS


def test_the_same_stream_gives_the_same_reference():
    one, two = (refer(THREE, scene_rng(5, 5)) for _ in range(2))
    assert one == two
    assert len({str(refer(THREE, scene_rng(5, i))) for i in range(20)}) > 5


def test_bad_arguments_are_named():
    rng = scene_rng(0, 0)
    with pytest.raises(ValueError, match="kind must be one of attribute, position, relation, got 'size'"):
        refer(THREE, rng, kind="size")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="phrasing must be one of train, held_out, got 'val'"):
        refer(THREE, rng, phrasing="val")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="target must be below the 3 things of the scene, got 3"):
        refer(THREE, rng, target=3)
