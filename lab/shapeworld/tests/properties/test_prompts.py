# SPDX-License-Identifier: Apache-2.0
"""Laws of prompts on what scenes really show: inside is inside, outside is outside."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from shapeworld import draw_scene, render, scene_rng
from shapeworld.prompts import box, points, scribble

masks = st.tuples(st.integers(0, 10**6), st.integers(0, 5), st.sampled_from([(32, 32), (64, 64), (40, 56)]))


def visible(key):
    index, thing, side = key
    scene = draw_scene(3, index)
    mask = render(scene, side).visible()[thing % len(scene.things)]
    assume(mask.any())
    return mask, scene_rng(3, index, 8)


def holds(mask, xy):
    cells = np.floor(xy).astype(int)
    return mask[cells[:, 1], cells[:, 0]]


@settings(max_examples=80, deadline=None)
@given(masks)
def test_scribble_stays_inside(key):
    mask, rng = visible(key)
    line = scribble(mask, rng, width=3)
    assert line.mask.any()
    assert not (line.mask & ~mask).any()
    # the straight pieces too, not only their ends
    ends = np.concatenate([line.points[:1], line.points])
    t = np.linspace(0, 1, 400)[:, None, None]
    dense = (ends[:-1] + t * (ends[1:] - ends[:-1])).reshape(-1, 2)
    # between two samples of the walk a corner of the outside may be cut by less than a quarter pixel
    near = ndimage.distance_transform_edt(~mask) < 1.5
    assert holds(near, dense).all()
    assert holds(mask, dense).mean() > 0.98
    assert holds(line.mask, line.points).all()


@settings(max_examples=80, deadline=None)
@given(masks, st.integers(0, 5), st.integers(0, 5))
def test_points_are_where_they_claim(key, positive, negative):
    mask, rng = visible(key)
    found = points(mask, rng, positive=positive, negative=negative, margin=2)
    assert found.xy.shape == (positive + negative, 2)
    np.testing.assert_array_equal(holds(mask, found.xy), found.labels == 1)
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    assert (holds(depth, found.xy[:positive]) >= 0.5 * depth.max()).all()
    away = ndimage.distance_transform_edt(~mask)
    assert (holds(away, found.xy[positive:]) >= min(2, away.max())).all()


@settings(max_examples=80, deadline=None)
@given(masks, st.floats(0, 0.49))
def test_box_overlaps_as_promised(key, jitter):
    mask, rng = visible(key)
    x0, y0, x1, y1 = box(mask, np.random.default_rng(0), jitter=0)
    a0, b0, a1, b1 = box(mask, rng, jitter=jitter)
    assert mask[int(y0) : int(y1), int(x0) : int(x1)].sum() == mask.sum()
    assert 0 <= a0 < a1 <= mask.shape[1]
    assert 0 <= b0 < b1 <= mask.shape[0]
    shared = (min(x1, a1) - max(x0, a0)) * (min(y1, b1) - max(y0, b0))
    union = (x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - shared
    assert shared / union >= (1 - 2 * jitter) ** 2 - 1e-9


def test_same_stream_same_prompt():
    scene = draw_scene(3, 1)
    mask = render(scene).visible()[0]
    one, two = (scribble(mask, scene_rng(3, 1, 8)) for _ in range(2))
    np.testing.assert_array_equal(one.points, two.points)
    np.testing.assert_array_equal(one.mask, two.mask)
