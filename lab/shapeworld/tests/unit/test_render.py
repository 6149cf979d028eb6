# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest
from shapeworld import Background, Scene, Thing, draw_scene, render, render_at
from shapeworld.grid import Grid
from shapeworld.vocabulary import BACKGROUNDS, COLOURS, MATERIALS, SHAPES

GROUND = Background(kind="gradient", seed=1)


def one(**changes: object) -> Scene:
    thing = Thing(shape="square", colour="red", material="solid", x=0.5, y=0.5, radius=0.3)
    return Scene(background=GROUND, things=(replace(thing, **changes),))


@pytest.mark.parametrize("side", [1, 32, 63, (48, 96), 512])
def test_any_side(side: int | tuple[int, int]) -> None:
    height, width = (side, side) if isinstance(side, int) else side
    rendering = render(draw_scene(0, 4), side)
    assert rendering.image.shape == (height, width, 3)
    assert rendering.image.dtype == np.uint8
    assert rendering.instances.shape == (height, width)
    assert rendering.full.shape == (len(rendering.scene.things), height, width)


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_a_window_is_a_part_of_the_larger_image(kind: str) -> None:
    scene = replace(draw_scene(0, 5), background=Background(kind=kind, seed=9))
    whole, part = render(scene, 128), render(scene, 64, window=(0.25, 0.5, 0.75, 1.0))
    assert np.abs(part.image.astype(int) - whole.image[64:, 32:96]).max() <= 1
    np.testing.assert_array_equal(part.instances, whole.instances[64:, 32:96])
    np.testing.assert_array_equal(part.full, whole.full[:, 64:, 32:96])


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_a_small_picture_is_the_mean_of_a_large_one(kind: str) -> None:
    scene = replace(draw_scene(0, 5), background=Background(kind=kind, seed=9))
    small = render(scene, 64).image
    mean = render(scene, 512).image.reshape(64, 8, 64, 8, 3).mean(axis=(1, 3))
    assert np.sqrt(np.mean((small - mean) ** 2)) < 9


@pytest.mark.parametrize("material", MATERIALS)
def test_materials_are_sharp_at_any_scale(material: str) -> None:
    scene = one(material=material)
    small = render(scene, 64).image
    mean = render(scene, 512).image.reshape(64, 8, 64, 8, 3).mean(axis=(1, 3))
    assert np.sqrt(np.mean((small - mean) ** 2)) < 9


def test_area_of_the_mask_is_that_of_the_shape() -> None:
    square = render(one(), 512)
    assert square.full[0].mean() == pytest.approx((2 * 0.72 * 0.3) ** 2, rel=0.01)
    circle = render(one(shape="circle"), 512)
    assert circle.full[0].mean() == pytest.approx(np.pi * (0.9 * 0.3) ** 2, rel=0.01)


def test_turn_is_clockwise_and_right_is_right() -> None:
    tip_up = render(one(shape="triangle", x=0.7), 128).full[0]
    rows, columns = np.nonzero(tip_up)
    assert abs(columns[rows == rows.min()].mean() - 0.7 * 128) < 1.5
    turned = render(one(shape="triangle", angle=np.pi / 2), 128).full[0]
    rows, columns = np.nonzero(turned)
    assert abs(rows[columns == columns.max()].mean() - 64) < 1.5
    assert columns.max() > 64 + 0.25 * 128


def test_later_things_cover_earlier_ones() -> None:
    below = one().things[0]
    above = replace(below, colour="blue", shape="circle", x=0.6)
    rendering = render(Scene(background=GROUND, things=(below, above)), 64)
    both = rendering.full.all(axis=0)
    assert both.any()
    assert (rendering.instances[both] == 2).all()
    np.testing.assert_array_equal(rendering.instances[rendering.full[0] & ~both], 1)
    np.testing.assert_array_equal(rendering.instances == 0, ~rendering.full.any(axis=0))


def test_semantic_masks_name_what_is_on_top() -> None:
    rendering = render(one(shape="heart", colour="cyan", material="wavy"), 64)
    inside = rendering.instances == 1
    for attribute, names, name in (
        ("shape", SHAPES, "heart"),
        ("colour", COLOURS, "cyan"),
        ("material", MATERIALS, "wavy"),
    ):
        mask = rendering.semantic(attribute)
        assert (mask[inside] == names.index(name) + 1).all()
        assert (mask[~inside] == 0).all()


def test_boxes_hold_their_masks_tightly() -> None:
    below = one().things[0]
    above = replace(below, colour="blue", x=0.62)
    rendering = render(Scene(background=GROUND, things=(below, above)), 64)
    for kind, masks in (("visible", rendering.visible()), ("full", rendering.full)):
        for (x0, y0, x1, y1), mask in zip(rendering.boxes(kind), masks, strict=True):
            assert mask.sum() == mask[y0:y1, x0:x1].sum()
            inner = mask[y0:y1, x0:x1]
            assert inner[0].any()
            assert inner[-1].any()
            assert inner[:, 0].any()
            assert inner[:, -1].any()
    assert rendering.boxes("visible")[0, 2] < rendering.boxes("full")[0, 2]


def test_what_is_not_seen_has_an_empty_box() -> None:
    below = replace(one().things[0], radius=0.1)
    above = replace(below, colour="blue", radius=0.3)
    rendering = render(Scene(background=GROUND, things=(below, above)), 64)
    np.testing.assert_array_equal(rendering.boxes("visible")[0], 0)
    assert rendering.boxes("full")[0].any()


def test_explicit_coordinates_render_the_same() -> None:
    scene = draw_scene(0, 11)
    grid = Grid.of_window(64, 64, (0.0, 0.0, 1.0, 1.0))
    x, y = np.broadcast_arrays(grid.x, grid.y)
    for pixel in (1 / 64, np.full((64, 64), 1 / 64)):
        rendering = render_at(scene, x, y, pixel)
        np.testing.assert_array_equal(rendering.instances, render(scene, 64).instances)
        assert np.abs(rendering.image.astype(int) - render(scene, 64).image).max() <= 1


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="side must be at least 1"):
        render(one(), 0)
    with pytest.raises(ValueError, match="window must be x0 < x1"):
        render(one(), 8, window=(0.5, 0, 0.5, 1))
