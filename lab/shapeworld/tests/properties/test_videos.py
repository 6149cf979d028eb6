# SPDX-License-Identifier: Apache-2.0
"""Laws of every video: identity is kept, masks and boxes agree, what is spoken of is seen."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from shapeworld import render
from shapeworld.videos import draw_video

numbers = st.tuples(st.integers(0, 10**6), st.integers(4, 16), st.sampled_from(["train", "test", "novel"]))


def draw(key):
    index, frames, split = key
    return draw_video(5, index, frames=frames, split=split)


@settings(max_examples=40, deadline=None)
@given(numbers)
def test_masks_boxes_and_tracks_agree(key):
    video = draw(key)
    rendered = video.render((40, 48))
    T, N = key[1], len(video.things)
    assert rendered.frames.shape == (T, 40, 48, 3)
    assert rendered.boxes.shape == (T, N, 4)
    assert video.present.shape == (T, N)
    for frame in range(T):
        for track in range(N):
            rows, columns = np.nonzero(rendered.instances[frame] == track + 1)
            box = rendered.boxes[frame, track]
            if len(rows) == 0:
                assert not box.any()
            else:
                assert video.present[frame, track]
                assert list(box) == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert rendered.instances.max() <= N


@settings(max_examples=200, deadline=None)
@given(numbers)
def test_a_track_keeps_what_it_is_and_stays_inside(key):
    video = draw(key)
    for scene, tracks in zip(video.scenes, video.tracks, strict=True):
        assert list(tracks) == sorted(set(tracks))
        assert scene.background == video.scenes[0].background
        for thing, track in zip(scene.things, tracks, strict=True):
            first = video.things[track]
            for name in ("shape", "colour", "material", "radius", "seed"):
                assert getattr(thing, name) == getattr(first, name)
            wall = 0.96 * thing.radius - 1e-9
            assert wall <= thing.x <= 1 - wall
            assert wall <= thing.y <= 1 - wall


def test_what_is_spoken_of_is_seen():
    shares = []
    for index in range(300):
        video = draw_video(6, index, frames=5)
        for track in {event.track for event in video.events} - {None}:
            frames = np.flatnonzero(video.present[:, track])
            for frame in (frames[0], frames[-1]):
                rendering = render(video.scenes[frame], 32)
                place = video.tracks[frame].index(track)
                shares.append(rendering.visible()[place].sum() / rendering.full[place].sum())
    assert np.mean(np.array(shares) > 0.35) > 0.997


def test_frame_zero_is_the_scene_where_nothing_comes():
    for index in range(30):
        video = draw_video(6, index)
        there = [video.things[track] for track in video.tracks[0]]
        for thing, first in zip(video.scenes[0].things, there, strict=True):
            np.testing.assert_allclose((thing.x, thing.y, thing.angle), (first.x, first.y, first.angle))


def test_same_numbers_same_video():
    assert draw_video(6, 3) == draw_video(6, 3)
    assert draw_video(6, 3) != draw_video(6, 4)
    assert draw_video(6, 3).things != draw_video(6, 3, split="val").things
