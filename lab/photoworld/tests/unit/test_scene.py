# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from photoworld import PALETTE, Cutout, draw_scene, library
from shapeworld import SceneConfig, render, scene_rng
from shapeworld.captions import caption
from shapeworld.edits import apply_edit, draw_edit
from shapeworld.questions import answer, ask
from shapeworld.referring import refer, resolve
from shapeworld.render import UNNAMED
from shapeworld.videos import draw_video
from shapeworld.warps import draw_pair
from shapeworld.words import are_named_apart

pytestmark = pytest.mark.usefixtures("drawn_world")
SPLITS = ("train", "val", "test")


@pytest.mark.parametrize("split", SPLITS)
def test_same_arguments_give_the_same_pixels(split):
    one, other = (render(draw_scene(3, 5, split=split), 48) for _ in range(2))
    assert one.scene == other.scene
    np.testing.assert_array_equal(one.image, other.image)
    assert draw_scene(3, 6, split=split) != one.scene


def test_splits_share_no_object_and_no_photograph():
    seen = [
        {(thing.shape, thing.picture) for i in range(40) for thing in draw_scene(0, i, split=split).things}
        | {(draw_scene(0, i, split=split).background.picture, "") for i in range(40)}
        for split in SPLITS
    ]
    assert all(seen)
    assert not any(one & other for one, other in combinations(seen, 2))
    with pytest.raises(ValueError, match="split"):
        draw_scene(0, 0, split="novel")


def test_masks_hold_the_pixels_that_a_cutout_changes():
    scene = draw_scene(0, 1, config=SceneConfig(num_things=(0, 1), occlusion=0))
    rendering, bare = render(scene, 96), render(replace(scene, things=()), 96)
    changed = (rendering.image != bare.image).any(axis=2)
    visible = rendering.visible().any(axis=0)
    assert visible.sum() > 100
    # what is inside a mask is painted over, but for chance; what is changed beyond is the soft edge
    assert changed[visible].mean() > 0.99
    assert (changed & ~visible).sum() < 0.35 * visible.sum()
    far = np.ones_like(visible)
    for thing in scene.things:
        rows, columns = np.mgrid[0:96, 0:96] / 96 + 0.5 / 96
        far &= np.hypot(columns - thing.x, rows - thing.y) > thing.reach() + 1.5 / 96
    assert not changed[far].any()


def test_distance_has_the_sign_of_the_mask_and_the_hole():
    scene = draw_scene(1, 2, config=SceneConfig(num_things=(1,)))
    rendering, thing = render(scene, 128), scene.things[0]
    ticks = (np.arange(128) + 0.5) / 128
    inside = thing.distance(ticks[None], ticks[:, None]) < 0
    assert (inside != rendering.full[0]).mean() < 0.02
    assert float(thing.distance(np.array([thing.x]), np.array([thing.y]))[0]) > 0  # the hole


def test_colours_and_names_become_labels():
    for index in range(20):
        rendering = render(draw_scene(2, index), 48)
        names = rendering.scene.values["shape"]
        for i, thing in enumerate(rendering.scene.things):
            own = rendering.instances == i + 1
            if own.any():
                assert set(rendering.semantic("shape")[own]) == {names.index(thing.shape) + 1}
                label = rendering.semantic("colour")[own][0]
                assert (label == UNNAMED) == (thing.colour == "")


def test_sentences_are_true_of_their_scene():
    for index in range(60):
        scene, rng = draw_scene(4, index, split="test"), scene_rng(4, index, 1)
        assert are_named_apart(scene.things)
        said = caption(scene, rng, length="long").split()
        assert {thing.shape for thing in scene.things} <= set(said)
        reference = refer(scene, rng)
        assert reference is not None
        assert resolve(reference.expression, scene) == (reference.target,)
        question = ask(scene, rng)
        assert question is not None
        assert question.kind != "material"
        assert question.answer == answer(question.query, scene) != ""


def test_edits_change_their_region_only():
    kinds = set()
    for index in range(40):
        scene, rng = draw_scene(5, index, split="val"), scene_rng(5, index, 1)
        edit = draw_edit(scene, rng)
        kinds.add(edit.kind)
        before, after = render(edit.source, 64).image, render(edit.target, 64).image
        assert not (before != after).any(axis=2)[~edit.region(64)].any()
        assert apply_edit(scene, edit.kind, edit.args, seed=edit.seed) == edit.target
    assert kinds == {"remove", "add", "recolour", "replace", "move"}
    with pytest.raises(ValueError, match="kind must be possible"):
        draw_edit(scene, rng, "restyle")


def test_a_new_colour_keeps_light_and_shade():
    scene = draw_scene(0, 3, config=SceneConfig(num_things=(1,)))
    thing = scene.things[0].changed("colour", "green")
    rendering = render(replace(scene, things=(thing,)), 96)
    pixels = rendering.image[rendering.visible()[0]].astype(float)
    assert thing.colour == thing.tint == "green"
    assert np.abs(pixels.mean(axis=0) / 255 - PALETTE["green"]).max() < 0.15
    assert pixels.mean(axis=1).std() > 1


def test_a_replaced_cutout_stays_in_its_split():
    thing = draw_scene(0, 0, split="val").things[0]
    assert isinstance(thing, Cutout)
    other = next(name for name in library().manifest.named("val") if name != thing.shape)
    new = thing.changed("shape", other)
    assert (new.shape, new.x, new.y) == (other, thing.x, thing.y)
    with pytest.raises(KeyError, match="trainapple"):
        thing.changed("shape", "trainapple")


def test_both_views_of_a_pair_show_the_same_points():
    scene = draw_scene(0, 2, split="test", config=SceneConfig(num_things=(0, 1)))
    pair = draw_pair(scene, scene_rng(0, 2, 9), 96)
    things = pair.valid & (pair.first.instances > 0)
    columns, rows = np.floor(pair.target[things]).astype(int).T
    assert things.sum() > 50
    np.testing.assert_array_equal(pair.second.instances[rows, columns], pair.first.instances[things])
    errors = np.abs(pair.second.image[rows, columns].astype(float) - pair.first.image[things])
    assert np.median(errors) < 12  # the same colours, but for the soft edges


def test_tracks_and_camera_of_a_video():
    drifts = 0
    for index in range(12):
        scene = draw_scene(7, index, split="test")
        video = draw_video(7, index, split="test", scene=scene)
        assert video.things == scene.things
        found = video.render(48)
        assert found.frames.shape[0] == len(video.scenes) == 8
        assert set(np.unique(found.instances)) <= set(range(len(scene.things) + 1))
        drifts += any(event.kind == "camera" for event in video.events)
    assert 0 < drifts < 12
