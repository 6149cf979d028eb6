# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from shapeworld.scene import Background, Scene, Thing
from shapeworld.words import (
    MARGIN,
    MIDDLE,
    Description,
    at,
    check_choice,
    covers,
    matching,
    names_unseen_pair,
    pluralise,
    related,
    shuffled,
    unique_descriptions,
    with_article,
    words_of,
)

GROUND = Background(kind="leaves", seed=0)


def thing(
    words: str = "solid red circle",
    *,
    x: float = 0.5,
    y: float = 0.5,
    radius: float = 0.1,
    angle: float = 0.0,
) -> Thing:
    material, colour, shape = words.split()
    return Thing(shape=shape, colour=colour, material=material, x=x, y=y, radius=radius, angle=angle)


def scene(*things: Thing) -> Scene:
    return Scene(background=GROUND, things=things)


LOOKALIKES = scene(thing("striped red star"), thing("dotted blue star"), thing("dotted red ring"))


def test_a_description_matches_by_every_attribute_it_names():
    assert matching(Description(), LOOKALIKES) == (0, 1, 2)
    assert matching(Description(shape="star"), LOOKALIKES) == (0, 1)
    assert matching(Description(shape="star", colour="red"), LOOKALIKES) == (0,)
    assert matching(Description(material="dotted", colour="red"), LOOKALIKES) == (2,)
    assert matching(Description(shape="star", material="wavy"), LOOKALIKES) == ()


def test_nouns():
    assert Description(shape="star", colour="red", material="striped").noun() == "striped red star"
    assert Description(colour="red").noun() == "red thing"
    assert Description(shape="cross").noun(plural=True) == "crosses"
    assert pluralise("thing") == "things"
    assert with_article("orange circle") == "an orange circle"
    assert with_article("ring") == "a ring"


def test_unique_descriptions_name_no_adjective_in_vain():
    assert unique_descriptions(LOOKALIKES, 0) == [
        Description(material="striped"),
        Description(shape="star", colour="red"),
        Description(shape="star", material="striped"),
    ]
    assert Description(shape="ring") in unique_descriptions(LOOKALIKES, 2)
    assert Description(shape="ring", colour="red") not in unique_descriptions(LOOKALIKES, 2)


def test_a_held_out_pair_is_unseen_unless_the_scene_holds_it():
    pair = Description(colour="red", shape="star")
    assert names_unseen_pair(pair, scene(thing()))
    assert not names_unseen_pair(pair, LOOKALIKES)
    assert not names_unseen_pair(Description(colour="red"), scene(thing()))


@pytest.mark.parametrize(
    ("place", "axis", "sign"), [("left", "x", -1), ("right", "x", 1), ("top", "y", -1), ("bottom", "y", 1)]
)
def test_between_the_middle_and_a_side_nothing_is_claimed(place: str, axis: str, sign: int):
    def off(by: float) -> Thing:
        return thing(**{axis: 0.5 + sign * by})

    cases = [
        (MIDDLE - 0.001, False, True),
        (MIDDLE + MARGIN / 2, None, None),
        (MIDDLE + MARGIN + 0.001, True, False),
    ]
    for by, side, middle in cases:
        assert at(off(by), place) is side
        assert at(off(by), "middle") is middle
    assert at(off(-0.3), place) is False


@pytest.mark.parametrize(
    ("relation", "dx", "dy"), [("left of", -1, 0), ("right of", 1, 0), ("above", 0, -1), ("below", 0, 1)]
)
def test_directions_need_the_margin(relation: str, dx: int, dy: int):
    for by, truth in ((0.059, None), (0.061, True), (-0.059, None), (-0.061, False)):
        # the other axis says nothing about this relation
        moved = thing(x=0.5 + dx * by + 0.3 * dy, y=0.5 + dy * by + 0.3 * dx)
        assert related(scene(moved, thing("solid blue circle")), 0, relation, 1) is truth


def test_the_later_thing_is_in_front_where_outlines_overlap():
    lapping = scene(thing(x=0.45), thing("solid blue circle", x=0.55))
    assert covers(lapping) == ((False, False), (True, False))
    assert related(lapping, 1, "in front of", 0) is True
    assert related(lapping, 0, "behind", 1) is True
    assert related(lapping, 0, "in front of", 1) is False


def test_things_apart_hide_nothing_and_a_mere_touch_is_left_open():
    apart, touching = (
        scene(thing(x=0.5 - by), thing("solid blue circle", x=0.5 + by)) for by in (0.15, 0.09)
    )
    assert covers(apart) == ((False, False), (False, False))
    assert covers(touching) == ((False, False), (None, False))


def test_outlines_count_not_circumscribed_circles():
    # the bite of the crescent is open to the right, and so the circle in it hides nothing
    crescent = thing("solid red crescent", x=0.4, radius=0.3)
    small = thing("solid blue circle", x=0.6, radius=0.08)
    assert covers(scene(crescent, small))[1][0] is False
    turned = thing("solid red crescent", x=0.4, radius=0.3, angle=np.pi)
    assert covers(scene(turned, small))[1][0] is True


def test_the_angle_turns_clockwise_on_the_screen():
    # after a quarter turn the bite is open to the bottom
    crescent = thing("solid red crescent", y=0.4, radius=0.3, angle=np.pi / 2)
    assert covers(scene(crescent, thing("solid blue circle", y=0.6, radius=0.08)))[1][0] is False
    assert covers(scene(crescent, thing("solid blue circle", y=0.2, radius=0.08)))[1][0] is True


def test_an_overlap_that_a_third_thing_hides_is_not_claimed():
    back, front = thing(x=0.4, radius=0.12), thing("solid blue circle", x=0.55, radius=0.12)
    over = thing("solid green circle", x=0.475, radius=0.15)
    assert covers(scene(back, front))[1][0] is True
    assert covers(scene(back, front, over))[1][0] is None


def test_small_helpers():
    assert words_of("is {a} there", "{b}", "is it") == {"is", "there", "it"}
    assert sorted(shuffled(np.random.default_rng(0), range(5))) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="kind must be one of a, b, got 'c'"):
        check_choice("kind", "c", ("a", "b"))
