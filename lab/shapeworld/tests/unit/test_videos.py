# SPDX-License-Identifier: Apache-2.0
"""Videos: bounces worked by hand, events against what the scenes do, words, and every documented error."""

import numpy as np
import pytest
from shapeworld import SceneConfig
from shapeworld.videos import DIRECTIONS, WORDS, _bounce, draw_video

LEVEL = SceneConfig(num_things=(0.4, 0.4, 0.2))


def videos(count, **options):
    return [draw_video(4, i, frames=4 + i % 13, **options) for i in range(count)]


def events(video, kind):
    return [event for event in video.events if event.kind == kind]


def centre(video, track, frame):
    thing = video.scenes[frame].things[video.tracks[frame].index(track)]
    return np.array([thing.x, thing.y])


def test_bounce_by_hand():
    # radius 0.25: walls at 0.24 and 0.76
    assert _bounce(0.5, 0.1, 0.25) == (pytest.approx(0.6), 0)
    assert _bounce(0.5, 0.36, 0.25) == (pytest.approx(0.66), 1)
    assert _bounce(0.5, -0.36, 0.25) == (pytest.approx(0.34), 1)
    assert _bounce(0.5, 0.88, 0.25) == (pytest.approx(0.34), 2)


def test_things_move_as_said():
    for video in videos(80):
        moves = events(video, "moves")
        assert moves
        for event in moves:
            way = DIRECTIONS[event.direction]
            step = centre(video, event.track, event.frame + 1) - centre(video, event.track, event.frame)
            assert step @ way > 0.01
            assert abs(step @ way) >= 3.9 * abs(step @ way[::-1])


def test_bounces_are_where_the_way_turns():
    bounces = 0
    for video in videos(80):
        for event in events(video, "moves"):
            frames = np.flatnonzero(video.present[:, event.track])
            along = [centre(video, event.track, frame) @ DIRECTIONS[event.direction] for frame in frames]
            turns = [
                bounce.frame - frames[0] for bounce in events(video, "bounces") if bounce.track == event.track
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
    for video in videos(80):
        said = video.present.copy()
        said[:] = True
        for event in events(video, "appears"):
            said[: event.frame, event.track] = False
        for event in events(video, "disappears"):
            said[event.frame :, event.track] = False
        np.testing.assert_array_equal(video.present, said)
        guests = events(video, "appears") + events(video, "disappears")
        assert len(guests) <= 1
        kinds |= {event.kind for event in guests}
    assert kinds == {"appears", "disappears"}


def test_turning_changes_the_angle_and_nothing_else_does():
    for video in videos(60):
        turning = {event.track for event in events(video, "turns")}
        moving = {event.track for event in events(video, "moves")}
        for scene, tracks in zip(video.scenes[1:], video.tracks[1:], strict=True):
            for thing, track in zip(scene.things, tracks, strict=True):
                before = video.things[track]
                if track not in turning:
                    assert thing.angle == before.angle
                if track not in moving:
                    assert (thing.x, thing.y) == (before.x, before.y)


def test_camera_drifts_as_said_and_stays_in_the_image():
    drifting = 0
    for video in videos(60):
        windows = np.array(video.windows)
        assert windows.min() >= 0
        assert windows.max() <= 1
        said = events(video, "camera")
        way = DIRECTIONS[said[0].direction] if said else (0, 0)
        drifting += len(said)
        np.testing.assert_allclose(np.sign((windows[-1] - windows[0]).round(9)), (*way, *way))
    assert 10 < drifting < 40


def test_caption_of_a_known_video():
    video = next(
        video for video in videos(200, config=SceneConfig(num_things=(1.0,))) if events(video, "disappears")
    )
    thing = video.things[0]
    assert f"{thing.colour} {thing.shape}" in video.caption
    assert any(word in video.caption for word in ("disappears", "vanishes"))
    assert events(video, "moves")[0].direction in video.caption


def test_words_are_exactly_what_is_said():
    said = set()
    for phrasing in ("train", "held_out"):
        for i in range(700):
            video = draw_video(4, i, frames=4, phrasing=phrasing)
            assert video.caption == " ".join(video.caption.lower().split())
            said |= set(video.caption.split(" "))
    assert said == set(WORDS)


def test_held_out_verbs_never_occur_in_training():
    verbs = {}
    for phrasing in ("train", "held_out"):
        nouns = set()
        texts = set()
        for video in videos(150, phrasing=phrasing, config=LEVEL):
            nouns |= {f"{thing.colour} {thing.shape}" for thing in video.things}
            texts |= {" ".join(clause.split()[3:]) for clause in video.caption.split(" while ")}
        verbs[phrasing] = {verb for text in texts for verb in text.split(" and ") if verb}
    assert not verbs["train"] & verbs["held_out"] - set(DIRECTIONS)


@pytest.mark.parametrize("frames", [3, 17])
def test_number_of_frames_is_checked(frames):
    with pytest.raises(ValueError, match="frames must be 4 to 16"):
        draw_video(0, 0, frames=frames)


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="split must be one of"):
        draw_video(0, 0, split="all")
    with pytest.raises(ValueError, match="phrasing must be one of"):
        draw_video(0, 0, phrasing="test")
