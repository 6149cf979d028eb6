# SPDX-License-Identifier: Apache-2.0
"""Questions with one word as the answer, about images and videos; the answers of a kind are equally frequent.

The answer is drawn before the question, so that the commonest answer of a kind tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from shapeworld import Scene
from shapeworld.questions import Kind as QuestionKind
from shapeworld.questions import Query, ask, slots
from shapeworld.videos import Video
from shapeworld.vocabulary import COLOURS as DRAWN_COLOURS
from shapeworld.words import matching
from vitron.demo.painters.words import SHAPES
from vitron.specialists.words import COLOURS

from recipes.vitron_tiny.composing import Composer, Step, Subject
from recipes.vitron_tiny.scenes import (
    MATERIALS,
    Draw,
    View,
    draw_style,
    noun,
    render_video,
    scene_of,
    video_of,
    view,
)
from recipes.vitron_tiny.wordings import CHANGES, COUNT, EVENT, MOVES, SPAN, WAY, WORDINGS, worded

NUMBERS = ("zero", "one", "two", "three", "four")
YES_NO = ("yes", "no")
ANSWERS: Mapping[QuestionKind, tuple[str, ...]] = {
    "count": NUMBERS[:4],
    "existence": YES_NO,
    "colour": DRAWN_COLOURS,
    "shape": SHAPES,
    "material": tuple(dict.fromkeys(MATERIALS)),
    "position": YES_NO,
    "relation": YES_NO,
    "comparison": YES_NO,
}
"""Answers of each kind of question about an image, each equally likely."""
_KINDS: tuple[QuestionKind, ...] = tuple(ANSWERS)
_VALUES = {*SHAPES, *COLOURS, *MATERIALS}
_SCENES, _QUESTIONS = 60, 6  # tries for an answer
_APART = 16  # numbers of scenes between two tries


def fresh_question(draw: Draw) -> tuple[View, Step] | None:
    """Return an image and a question about it."""
    kind: QuestionKind = draw.pick(*_KINDS)
    wanted = draw.pick(*ANSWERS[kind])
    # nothing that is painted flat has a pattern
    style = "drawn" if kind == "material" else draw_style(draw)
    for number in range(_SCENES):
        source = replace(draw, number=draw.number + _APART * number)
        scene = scene_of(source, plain=style == "flat", occlusion=0.3)
        query = _asked(draw, scene, kind, wanted, tries=2)
        shown = None if query is None else view(draw, scene, style)
        if query is not None and shown is not None:
            return shown, _step(draw, query, wanted)
    return None


def question(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Ask for one word about the image of a conversation."""
    kinds: list[QuestionKind] = [kind for kind in _KINDS if kind != "material" or shown.style == "drawn"]
    kind: QuestionKind = draw.pick(*kinds)
    wanted = draw.pick(*ANSWERS[kind])
    query = _asked(draw, shown.scene, kind, wanted, tries=_QUESTIONS)
    if query is None:
        return None
    step, found = _step(draw, query, wanted), matching(query.subject, shown.scene)
    if kind not in ("count", "comparison") and len(found) == 1:
        # what "it" then means is said in the words of the question, as the user did
        return replace(step, subject=Subject(targets=found, phrase=f"the {query.subject.noun()}"))
    return step


def _asked(draw: Draw, scene: Scene, kind: QuestionKind, wanted: str, *, tries: int) -> Query | None:
    """Return a question of a kind with the wanted answer, if one is found, in the words of this world."""
    for _ in range(tries):
        asked = ask(scene, draw.rng, kind=kind)
        if asked is None:
            return None
        if asked.answer == wanted and _is_known(asked.query):
            return asked.query
    return None


def _is_known(query: Query) -> bool:
    described = [query.subject, *([query.other] if query.other is not None else [])]
    named = {getattr(one, name) for one in described for name in one.named()}
    return named <= _VALUES


def _step(draw: Draw, query: Query, answer: str) -> Step:
    text = worded(draw, WORDINGS[query.kind], "?", **slots(query))
    return Step(task="question", text=text, reply=answer, group=query.kind)


# -- videos

VIDEO_ANSWERS: Mapping[str, tuple[str, ...]] = {
    "way": ("left", "right", "up", "down"),
    "moves": YES_NO,
    "changes": YES_NO,
    "count": NUMBERS[1:],
}
"""Answers of each kind of question about a video, each equally likely where videos allow."""
_VIDEOS = 16  # tries for an answer


def fresh_video_question(draw: Draw) -> tuple[View, Step] | None:
    """Return a video and a question about it."""
    kind, style = draw.pick(*VIDEO_ANSWERS), draw_style(draw)
    wanted = draw.pick(*VIDEO_ANSWERS[kind])
    for number in range(_VIDEOS):
        video = video_of(replace(draw, number=draw.number + _APART * number), style)
        text = _VIDEO_QUESTIONS[kind](draw, video, wanted)
        shown = None if text is None else render_video(draw, video, style)
        if text is not None and shown is not None:
            return shown, Step(task="video_question", text=text, reply=wanted, group=kind)
    return None


def video_question(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Ask for one word about the video of a conversation."""
    kind = draw.pick(*VIDEO_ANSWERS)
    wanted = draw.pick(*VIDEO_ANSWERS[kind])
    assert shown.video is not None
    text = _VIDEO_QUESTIONS[kind](draw, shown.video, wanted)
    return None if text is None else Step(task="video_question", text=text, reply=wanted, group=kind)


def _way(draw: Draw, video: Video, wanted: str) -> str | None:
    # on the way back from a wall there is no one direction
    tracks = [
        event.track or 0
        for event in video.events
        if event.kind == "moves" and event.direction == wanted and not _happens(video, "bounces", event.track)
    ]
    return worded(draw, WAY, "?", thing=_name(video, draw.pick(*tracks))) if tracks else None


def _happens(video: Video, kind: str, track: int | None = None) -> bool:
    return any(event.kind == kind and track in (None, event.track) for event in video.events)


def _name(video: Video, track: int) -> str:
    return f"the {noun(video.things[track])}"


def _moves(draw: Draw, video: Video, wanted: str) -> str | None:
    tracks = [
        track
        for track in range(len(video.things))
        if _happens(video, "moves", track) is (wanted == "yes") and not _happens(video, "turns", track)
    ]
    return worded(draw, MOVES, "?", thing=_name(video, draw.pick(*tracks))) if tracks else None


def _changes(draw: Draw, video: Video, wanted: str) -> str | None:
    verb = draw.pick("appear", "disappear")
    right = _happens(video, f"{verb}s") is (wanted == "yes")
    return worded(draw, CHANGES, "?", verb=verb) if right else None


def _count(draw: Draw, video: Video, wanted: str) -> str | None:
    end = draw.pick("first", "last")
    found = int(video.present[0 if end == "first" else -1].sum())
    return worded(draw, COUNT, "?", end=end) if found == NUMBERS.index(wanted) else None


_VIDEO_QUESTIONS: Mapping[str, Callable[[Draw, Video, str], str | None]] = {
    "way": _way,
    "moves": _moves,
    "changes": _changes,
    "count": _count,
}


def span_grounding(draw: Draw, shown: View, state: Composer) -> Step | None:
    """Say in which frames an object is there, or when it comes or goes."""
    video = shown.video
    assert video is not None
    guests = [event for event in video.events if event.kind in ("appears", "disappears")]
    # an object that is always there is asked for too, but not as often as there are such
    if not guests and draw.chance(0.8):
        return None
    track = (guests[0].track or 0) if guests else int(draw.rng.integers(len(video.things)))
    thing = _name(video, track)
    if guests and draw.chance(0.4):
        text = worded(draw, EVENT, "?", thing=thing, verb=guests[0].kind[:-1])
        reply, group = f"In frame {guests[0].frame}.", "event"
    else:
        there = np.flatnonzero(video.present[:, track])
        text = worded(draw, SPAN, "?", thing=thing)
        reply, group = f"In frames {there[0]} to {there[-1]}.", "span"
    subject = Subject(targets=(track,), phrase=thing)
    return Step(task="span_grounding", text=text, reply=reply, subject=subject, group=group)
