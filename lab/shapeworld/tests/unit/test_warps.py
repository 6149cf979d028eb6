# SPDX-License-Identifier: Apache-2.0
"""Warps worked by hand: identity, whole pixels, a quarter turn, a hidden corner, the documented errors."""

from math import pi

import numpy as np
import pytest
from shapeworld import Background, Scene, Thing, draw_scene, render
from shapeworld.warps import Warp, WarpConfig, draw_pair, draw_warp, warp_pair

NO_WAVES = (np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))
SQUARE = Thing(shape="square", colour="red", material="solid", x=0.5, y=0.5, radius=0.25)
CIRCLE = Thing(shape="circle", colour="blue", material="solid", x=0.68, y=0.32, radius=0.1)
SCENE = Scene(background=Background(kind="clouds", seed=3), things=(SQUARE, CIRCLE))


def affine(matrix, shift=(0.0, 0.0)):
    return Warp(np.array(matrix, dtype=np.float64), np.array(shift, dtype=np.float64), *NO_WAVES)


def test_identity_renders_the_same_image():
    for index in range(12):
        scene = draw_scene(7, index)
        pair = warp_pair(scene, scene, affine(np.eye(2)), (48, 64))
        np.testing.assert_array_equal(pair.first.image, render(scene, (48, 64)).image)
        difference = np.abs(pair.first.image.astype(int) - pair.second.image.astype(int))
        # only what lies on an edge to the last digit may tip over
        assert (difference > 1).mean() < 1e-3
        assert pair.valid.mean() > 0.999
        y, x = np.mgrid[:48, :64] + 0.5
        np.testing.assert_allclose(pair.target, np.stack([x, y], axis=-1), atol=1e-9)


def test_shift_by_whole_pixels():
    pair = warp_pair(SCENE, SCENE, affine(np.eye(2), (0.25, -0.125)), 32)
    moved, still = pair.second.image[:28, 8:].astype(int), pair.first.image[4:, :24].astype(int)
    assert np.abs(moved - still).max() <= 1
    np.testing.assert_allclose(pair.target[20, 3], (11.5, 16.5))
    expected = np.zeros((32, 32), dtype=np.bool_)
    expected[4:, :24] = True
    np.testing.assert_array_equal(pair.valid, expected)


def test_quarter_turn_is_clockwise():
    pair = warp_pair(SCENE, SCENE, affine([[0, -1], [1, 0]]), 32)
    turned = np.rot90(pair.first.image, k=-1).astype(int)
    assert np.abs(pair.second.image.astype(int) - turned).max() <= 1
    np.testing.assert_allclose(pair.target[0, 0], (31.5, 0.5))


def test_thing_moves_by_itself():
    moved = Scene(
        background=SCENE.background,
        things=(
            SQUARE,
            Thing(shape="circle", colour="blue", material="solid", x=0.2, y=0.7, radius=0.1, angle=pi / 2),
        ),
    )
    pair = warp_pair(SCENE, moved, affine(np.eye(2)), 100)
    own = pair.first.instances == 2
    # a point one to the right of the centre is one below it after a quarter turn
    np.testing.assert_allclose(pair.target[32, 69], (20 - 0.5, 70 + 1.5))
    assert pair.valid[own].mean() > 0.95
    # the ground that the circle now hides has no counterpart, nor has the ground it leaves in the first
    assert not pair.valid[70, 20]
    assert pair.first.instances[70, 20] == 0


def test_corner_under_another_thing_is_hidden():
    pair = warp_pair(SCENE, SCENE, affine(np.eye(2)), 64)
    found = pair.keypoints
    assert found.names == ("centre", "corner 0", "corner 1", "corner 2", "corner 3", "centre")
    np.testing.assert_array_equal(found.things, [0, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(found.seen_first, [True, True, False, True, True, True])
    half = 0.72 * 0.25
    np.testing.assert_allclose(found.first[2], (64 * (0.5 + half), 64 * (0.5 - half)))


def test_keypoint_out_of_view_is_hidden():
    pair = warp_pair(SCENE, SCENE, affine(np.eye(2), (0.4, 0.0)), 64)
    np.testing.assert_array_equal(pair.keypoints.seen_second, [True, True, False, False, True, False])


def test_a_picture_without_things():
    empty = Scene(background=SCENE.background, things=())
    pair = draw_pair(empty, np.random.default_rng(0), 16)
    assert pair.keypoints.first.shape == (0, 2)
    assert pair.valid.any()


def test_similarity_keeps_angles():
    config = WarpConfig(stretch=1, bend=0)
    for i in range(20):
        matrix = draw_warp(np.random.default_rng(i), config).matrix
        gram = matrix.T @ matrix
        np.testing.assert_allclose(gram, gram[0, 0] * np.eye(2), atol=1e-12)
        assert 1 / 1.3**2 <= gram[0, 0] <= 1.3**2


def test_errors():
    with pytest.raises(ValueError, match="must be at least 1"):
        WarpConfig(scale=0.5)
    with pytest.raises(ValueError, match="bend must be in"):
        WarpConfig(bend=0.6)
    with pytest.raises(ValueError, match="side must be"):
        draw_pair(SCENE, np.random.default_rng(0), 0)
    other = Scene(background=SCENE.background, things=(CIRCLE, SQUARE))
    for moved in (other, Scene(background=SCENE.background, things=(SQUARE,))):
        with pytest.raises(ValueError, match="moved must hold"):
            warp_pair(SCENE, moved, affine(np.eye(2)))
