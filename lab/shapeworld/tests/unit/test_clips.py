# SPDX-License-Identifier: Apache-2.0
"""Clips: bounces worked by hand, events against what the scenes do, words, and every documented error."""

import numpy as np
import pytest
from shapeworld import SceneConfig
from shapeworld.clips import DIRECTIONS, WORDS, _bounce, draw_clip

LEVEL = SceneConfig(num_things=(0.4, 0.4, 0.2))


def clips(count, **options):
    return [draw_clip(4, i, frames=4 + i % 13, **options) for i in range(count)]


def events(clip, kind):
    return [event for event in clip.events if event.kind == kind]


def centre(clip, track, frame):
    thing = clip.scenes[frame].things[clip.tracks[frame].index(track)]
    return np.array([thing.x, thing.y])


def test_bounce_by_hand():
    # radius 0.25: walls at 0.24 and 0.76
    assert _bounce(0.5, 0.1, 0.25) == (pytest.approx(0.6), 0)
    assert _bounce(0.5, 0.36, 0.25) == (pytest.approx(0.66), 1)
    assert _bounce(0.5, -0.36, 0.25) == (pytest.approx(0.34), 1)
    assert _bounce(0.5, 0.88, 0.25) == (pytest.approx(0.34), 2)


def test_things_move_as_said():
    for clip in clips(80):
        moves = events(clip, "moves")
        assert moves
        for event in moves:
            way = DIRECTIONS[event.direction]
            step = centre(clip, event.track, event.frame + 1) - centre(clip, event.track, event.frame)
            assert step @ way > 0.01
            assert abs(step @ way) >= 3.9 * abs(step @ way[::-1])


def test_bounces_are_where_the_way_turns():
    bounces = 0
    for clip in clips(80):
        for event in events(clip, "moves"):
            frames = np.flatnonzero(clip.present[:, event.track])
            along = [centre(clip, event.track, frame) @ DIRECTIONS[event.direction] for frame in frames]
            turns = [
                bounce.frame - frames[0] for bounce in events(clip, "bounces") if bounce.track == event.track
            ]
            assert all(0 < turn < len(frames) - 1 for turn in turns)
            # between two bounces the way is straight: equal steps, alternating in sign
            steps, sign = np.diff(along), 1
            for i, step in enumerate(steps[:-1]):
                if i + 1 in turns:
                    sign = -sign
                else:
                    assert step == pytest.approx(sign * steps[0])
            bounces += len(turns)
    assert bounces > 10


def test_coming_and_going_are_what_present_says():
    kinds = set()
    for clip in clips(80):
        said = clip.present.copy()
        said[:] = True
        for event in events(clip, "appears"):
            said[: event.frame, event.track] = False
        for event in events(clip, "disappears"):
            said[event.frame :, event.track] = False
        np.testing.assert_array_equal(clip.present, said)
        guests = events(clip, "appears") + events(clip, "disappears")
        assert len(guests) <= 1
        kinds |= {event.kind for event in guests}
    assert kinds == {"appears", "disappears"}


def test_turning_changes_the_angle_and_nothing_else_does():
    for clip in clips(60):
        turning = {event.track for event in events(clip, "turns")}
        moving = {event.track for event in events(clip, "moves")}
        for scene, tracks in zip(clip.scenes[1:], clip.tracks[1:], strict=True):
            for thing, track in zip(scene.things, tracks, strict=True):
                before = clip.things[track]
                if track not in turning:
                    assert thing.angle == before.angle
                if track not in moving:
                    assert (thing.x, thing.y) == (before.x, before.y)


def test_camera_drifts_as_said_and_stays_in_the_picture():
    drifting = 0
    for clip in clips(60):
        windows = np.array(clip.windows)
        assert windows.min() >= 0
        assert windows.max() <= 1
        said = events(clip, "camera")
        way = DIRECTIONS[said[0].direction] if said else (0, 0)
        drifting += len(said)
        np.testing.assert_allclose(np.sign((windows[-1] - windows[0]).round(9)), (*way, *way))
    assert 10 < drifting < 40


def test_caption_of_a_known_clip():
    clip = next(
        clip for clip in clips(200, config=SceneConfig(num_things=(1.0,))) if events(clip, "disappears")
    )
    thing = clip.things[0]
    assert f"{thing.colour} {thing.shape}" in clip.caption
    assert any(word in clip.caption for word in ("disappears", "vanishes"))
    assert events(clip, "moves")[0].direction in clip.caption


def test_words_are_exactly_what_is_said():
    said = set()
    for phrasing in ("train", "held_out"):
        for i in range(700):
            clip = draw_clip(4, i, frames=4, phrasing=phrasing)
            assert clip.caption == " ".join(clip.caption.lower().split())
            said |= set(clip.caption.split(" "))
    assert said == set(WORDS)


def test_held_out_verbs_never_occur_in_training():
    verbs = {}
    for phrasing in ("train", "held_out"):
        nouns = set()
        texts = set()
        for clip in clips(150, phrasing=phrasing, config=LEVEL):
            nouns |= {f"{thing.colour} {thing.shape}" for thing in clip.things}
            texts |= {" ".join(clause.split()[3:]) for clause in clip.caption.split(" while ")}
        verbs[phrasing] = {verb for text in texts for verb in text.split(" and ") if verb}
    assert not verbs["train"] & verbs["held_out"] - set(DIRECTIONS)


@pytest.mark.parametrize("frames", [3, 17])
def test_number_of_frames_is_checked(frames):
    with pytest.raises(ValueError, match="frames must be 4 to 16"):
        draw_clip(0, 0, frames=frames)


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="split must be one of"):
        draw_clip(0, 0, split="all")
    with pytest.raises(ValueError, match="phrasing must be one of"):
        draw_clip(0, 0, phrasing="test")
