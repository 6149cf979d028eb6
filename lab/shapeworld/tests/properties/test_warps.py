# SPDX-License-Identifier: Apache-2.0
"""Laws of every pair: the map has an inverse, correspondence carries looks and identity, keypoints agree."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from shapeworld import draw_scene, scene_rng
from shapeworld.warps import WarpConfig, draw_pair, draw_warp

seeds = st.integers(0, 10**6)
CONFIGS = (
    WarpConfig(bend=0),
    WarpConfig(bend=0.5),
    WarpConfig(rotation=0, scale=1, stretch=1, shift=0, bend=0, motion=0.2, turn=1.0),
    WarpConfig(motion=0.1, turn=0.5),
)


def bilinear(image, xy):
    places = np.moveaxis(xy[..., ::-1], -1, 0) - 0.5
    channels = np.moveaxis(image.astype(np.float64), -1, 0)
    return np.stack([ndimage.map_coordinates(c, places, order=1, mode="nearest") for c in channels], axis=-1)


def is_flat(image):
    channels = image.astype(np.float64)
    spread = ndimage.maximum_filter(channels, (5, 5, 1)) - ndimage.minimum_filter(channels, (5, 5, 1))
    return spread.max(axis=-1) < 16


@settings(max_examples=100, deadline=None)
@given(seeds, st.sampled_from(CONFIGS))
def test_inverse_undoes_forward(seed, config):
    rng = np.random.default_rng(seed)
    warp = draw_warp(rng, config)
    points = rng.uniform(-0.5, 1.5, (200, 2))
    np.testing.assert_allclose(warp.inverse(warp.forward(points)), points, atol=1e-12)
    np.testing.assert_allclose(warp.forward(warp.inverse(points)), points, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(seeds, st.sampled_from(CONFIGS))
def test_enlargement_is_the_root_of_the_area(seed, config):
    rng = np.random.default_rng(seed)
    warp = draw_warp(rng, config)
    point, h = rng.random(2), 1e-5
    ahead, behind = (warp.forward(point + sign * h * np.eye(2)) for sign in (1, -1))
    area = abs(np.linalg.det((ahead - behind) / (2 * h)))
    np.testing.assert_allclose(warp.enlargement(point), np.sqrt(area), rtol=1e-6)
    # no fold: the map keeps the orientation everywhere
    assert np.linalg.det((ahead - behind) / (2 * h)) > 0


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from(CONFIGS))
def test_correspondence_carries_identity_and_looks(seed, config):
    scene = draw_scene(8, seed)
    pair = draw_pair(scene, scene_rng(8, seed, 9), 96, config=config)
    assert pair.valid.mean() > 0.3
    x, y = np.floor(pair.target[pair.valid]).astype(int).T
    assert x.min() >= 0
    assert y.min() >= 0
    assert max(x.max(), y.max()) < 96
    np.testing.assert_array_equal(pair.second.instances[y, x], pair.first.instances[pair.valid])
    # sampled where it says, the second image looks like the first; edges finer than a pixel aside
    colours = bilinear(pair.second.image, pair.target)
    difference = np.abs(colours - pair.first.image).max(axis=-1)[pair.valid]
    calm = is_flat(pair.first.image)[pair.valid] & is_flat(pair.second.image)[y, x]
    if calm.sum() > 50:
        assert np.median(difference[calm]) < 2
        assert np.mean(difference[calm] > 12) < 0.005


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from(CONFIGS))
def test_keypoints_agree_with_dense_correspondence(seed, config):
    scene = draw_scene(8, seed)
    pair = draw_pair(scene, scene_rng(8, seed, 9), 128, config=config)
    found = pair.keypoints
    cells = np.floor(found.first).astype(int)
    for k in np.flatnonzero(found.seen_first):
        x, y = cells[k]
        owner = found.things[k] + 1
        if pair.first.instances[y, x] != owner:
            continue
        # at most half a diagonal from the pixel's centre, and no warp enlarges more than three times
        assert np.hypot(*(pair.target[y, x] - found.second[k])) < 3 * 0.71
    for xy, seen in ((found.first, found.seen_first), (found.second, found.seen_second)):
        assert (xy[seen] >= 0).all()
        assert (xy[seen] < 128).all()


def test_what_a_seen_centre_shows_is_its_thing():
    checked = 0
    for index in range(60):
        scene = draw_scene(8, index)
        pair = draw_pair(scene, scene_rng(8, index, 9), 128)
        found = pair.keypoints
        for k, name in enumerate(found.names):
            solid = scene.things[found.things[k]].shape not in ("ring", "crescent")
            if name == "centre" and solid:
                for rendering, xy, seen in (
                    (pair.first, found.first[k], found.seen_first[k]),
                    (pair.second, found.second[k], found.seen_second[k]),
                ):
                    x, y = np.floor(xy).astype(int)
                    if seen:
                        assert rendering.instances[y, x] in (
                            found.things[k] + 1,
                            *range(found.things[k] + 2, 7),
                        )
                        checked += rendering.instances[y, x] == found.things[k] + 1
    assert checked > 100


def test_same_stream_same_pair():
    scene = draw_scene(8, 1)
    one, two = (draw_pair(scene, scene_rng(8, 1, 9), 32) for _ in range(2))
    np.testing.assert_array_equal(one.second.image, two.second.image)
    np.testing.assert_array_equal(one.target, two.target)
