# SPDX-License-Identifier: Apache-2.0
"""Laws that hold for every scene of the world, over 10,000 of them."""

import numpy as np
import pytest
from shapeworld import draw_scene, render
from shapeworld.vocabulary import COLOURS, HELD_OUT, MATERIALS, SHAPES

CHUNK = 1250
SPLITS = ("train", "val", "test", "novel")


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("half", [0, 1])
def test_scenes_and_their_truth_agree(split: str, half: int) -> None:
    for index in range(half * CHUNK, (half + 1) * CHUNK):
        scene = draw_scene(5, index, split=split)
        rendering = render(scene, 64)
        where = f"{split} {index}"
        pairs = {(thing.colour, thing.shape) for thing in scene.things}
        assert len(pairs) == len(scene.things) <= 6, where
        assert bool(pairs & HELD_OUT) == (split == "novel"), where

        visible, full = rendering.visible(), rendering.full
        assert (visible.sum(axis=(1, 2)) >= 20).all(), where  # nothing is hidden
        assert not (visible & ~full).any(), where
        np.testing.assert_array_equal(visible.sum(axis=0) + (rendering.instances == 0), 1, where)
        for i in range(len(scene.things)):
            above = full[i + 1 :].any(axis=0)
            np.testing.assert_array_equal(visible[i], full[i] & ~above, where)

        for attribute, names in (("shape", SHAPES), ("colour", COLOURS), ("material", MATERIALS)):
            mask = rendering.semantic(attribute)
            np.testing.assert_array_equal(mask == 0, rendering.instances == 0, where)
            shown = {names[label - 1] for label in np.unique(mask) if label}
            assert shown == {getattr(thing, attribute) for thing in scene.things}, where


def test_things_lie_inside_the_image() -> None:
    for index in range(CHUNK):
        for thing in draw_scene(6, index).things:
            assert 0.95 * thing.radius <= min(thing.x, thing.y, 1 - thing.x, 1 - thing.y) + 1e-12


def test_colour_alone_separates_no_thing_from_its_ground() -> None:
    """In a good part of the scenes some ground is closer to the thing's colour than half of the thing is."""
    confusable = 0
    for index in range(300):
        rendering = render(draw_scene(7, index), 64)
        inside = rendering.instances == 1
        image = rendering.image.astype(float)
        distance = np.linalg.norm(image - np.median(image[inside], axis=0), axis=-1)
        confusable += distance[rendering.instances == 0].min() < np.median(distance[inside])
    assert confusable > 60
