# SPDX-License-Identifier: Apache-2.0
"""Edits: each kind worked by hand, words, and every documented error."""

import numpy as np
import pytest
from shapeworld import Background, Scene, Thing, draw_scene
from shapeworld.edits import KINDS, WORDS, apply_edit, draw_edit

RED_STAR = Thing(shape="star", colour="red", material="solid", x=0.3, y=0.4, radius=0.15, seed=1)
BLUE_RING = Thing(shape="ring", colour="blue", material="dotted", x=0.7, y=0.6, radius=0.2, seed=2)
SCENE = Scene(background=Background(kind="gradient", seed=3), things=(RED_STAR, BLUE_RING))
STAR = {"colour": "red", "shape": "star"}


@pytest.mark.parametrize(
    ("kind", "args", "field", "value"),
    [
        ("recolour", {"to": "green"}, "colour", "green"),
        ("replace", {"to": "heart"}, "shape", "heart"),
        ("restyle", {"to": "wavy"}, "material", "wavy"),
        ("move", {"direction": "down", "distance": "long"}, "y", 0.7),
        ("move", {"direction": "left", "distance": "short"}, "x", 0.15),
    ],
)
def test_arguments_change_one_field_of_one_thing(kind, args, field, value):
    target = apply_edit(SCENE, kind, STAR | args)
    assert target.things[1] == BLUE_RING
    changed = [name for name in Thing.__slots__ if getattr(target.things[0], name) != getattr(RED_STAR, name)]
    assert changed == [field]
    assert getattr(target.things[0], field) == pytest.approx(value) if field in "xy" else value


def test_remove_and_add_by_hand():
    assert apply_edit(SCENE, "remove", STAR).things == (BLUE_RING,)
    new = {"size": "small", "material": "wavy", "colour": "pink", "shape": "cross", "place": "top right"}
    added = apply_edit(SCENE, "add", new, seed=9).things
    assert added[:2] == SCENE.things
    assert added[2] == Thing(
        shape="cross", colour="pink", material="wavy", x=0.76, y=0.24, radius=0.12, angle=0.0, seed=9
    )


@pytest.mark.parametrize("kind", KINDS)
def test_arguments_say_the_whole_edit(kind):
    rng = np.random.default_rng(5)
    edit = draw_edit(SCENE, rng, kind)
    assert edit.kind == kind
    assert apply_edit(edit.source, kind, edit.args, seed=edit.seed) == edit.target


@pytest.mark.parametrize("kind", KINDS)
def test_held_out_instructions_never_occur_in_training(kind):
    said = {
        phrasing: {
            draw_edit(SCENE, np.random.default_rng(i), kind, phrasing=phrasing).instruction
            for i in range(150)
        }
        for phrasing in ("train", "held_out")
    }
    assert all(said.values())
    assert not said["train"] & said["held_out"]
    if kind != "add":
        assert all("the red star" in text or "the blue ring" in text for text in set.union(*said.values()))


def test_words_are_exactly_what_is_said():
    said = set()
    for i in range(4000):
        scene = draw_scene(0, i % 200)
        phrasing = ("train", "held_out")[i % 2]
        said |= set(draw_edit(scene, np.random.default_rng(i), phrasing=phrasing).instruction.split(" "))
    assert said == set(WORDS)


def test_region_holds_old_and_new_place():
    edit = draw_edit(SCENE, np.random.default_rng(0), "move")
    region = edit.region(64)
    for scene, place in ((edit.source, edit.subject), (edit.target, edit.result)):
        thing = scene.things[place]
        around = region[int(64 * (thing.y - 0.15)) : int(64 * (thing.y + 0.15))]
        assert around[:, int(64 * (thing.x - 0.15)) : int(64 * (thing.x + 0.15))].any()


def test_errors():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="kind must be one of"):
        draw_edit(SCENE, rng, "paint")
    with pytest.raises(ValueError, match="phrasing must be one of"):
        draw_edit(SCENE, rng, phrasing="test")
    with pytest.raises(ValueError, match="kind must be possible"):
        draw_edit(Scene(background=SCENE.background, things=()), rng, "remove")
    with pytest.raises(ValueError, match="kind must be one of"):
        apply_edit(SCENE, "paint", STAR)
    with pytest.raises(ValueError, match="must name a thing"):
        apply_edit(SCENE, "remove", {"colour": "red", "shape": "ring"})
    with pytest.raises(ValueError, match="must hold known words"):
        apply_edit(SCENE, "recolour", STAR)
    with pytest.raises(ValueError, match="must hold known words"):
        apply_edit(SCENE, "recolour", STAR | {"to": "mauve"})
    with pytest.raises(ValueError, match="must leave colour and shape unique"):
        apply_edit(
            apply_edit(SCENE, "recolour", STAR | {"to": "blue"}),
            "replace",
            {"colour": "blue", "shape": "star", "to": "ring"},
        )
