# SPDX-License-Identifier: Apache-2.0
"""Conversations of two to four turns: references back, results of calls, and small talk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from shapeworld import scene_rng
from shapeworld.words import Phrasing
from vitron.data.example import Example

from recipes.vitron_tiny import editing, followups, generation, images, questions, videos
from recipes.vitron_tiny.composing import Composer, Drawn, Step
from recipes.vitron_tiny.plain_requests import PLAIN_IMAGE, PLAIN_VIDEO, Maker
from recipes.vitron_tiny.scenes import Draw, Split, View

__all__ = ["REFERENCES", "draw_conversation", "draw_turns"]

FreeMaker = Callable[[Draw, View | None, Composer], Step | None]
_T = TypeVar("_T")

TURNS = (2, 3, 4)
TURN_SHARES = (0.4, 0.35, 0.25)
SMALL_TALK = 0.15  # share of the turns
LATE, AGAIN = 0.15, 0.06  # share of the media shown after small talk; of the turns that show another image
START: Mapping[str, float] = {"image": 0.68, "video": 0.22, "nothing": 0.1}
"""Shares of what the user shows first."""

IMAGE_TURNS: Mapping[Maker, float] = {
    images.caption: 0.06,
    images.grounding: 0.03,
    questions.question: 0.12,
    images.region_caption: 0.12,
    images.referring_segmentation: 0.26,
    images.sketch_segmentation: 0.08,
    editing.editing: 0.17,
    editing.restoration: 0.03,
    editing.image_to_video: 0.06,
    generation.chain_on_shown: 0.05,
}
VIDEO_TURNS: Mapping[Maker, float] = {
    questions.video_question: 0.25,
    questions.span_grounding: 0.1,
    videos.tracking: 0.45,
    videos.video_editing: 0.2,
}
IMAGE_REFERENCES: Mapping[Maker, float] = {
    followups.edit_it: 0.3,
    followups.animate_it: 0.1,
    followups.segment_it: 0.15,
    followups.ask_about_it: 0.1,
    followups.name_it: 0.1,
    followups.other_one: 1.2,
    followups.same_for: 0.2,
    followups.correction: 0.25,
    followups.earlier_image: 0.4,
}
VIDEO_REFERENCES: Mapping[Maker, float] = {
    followups.track_it: 0.3,
    followups.ask_about_it: 0.1,
    followups.other_one: 1.2,
    followups.same_for: 0.2,
    followups.correction: 0.2,
}
REFERENCES = 0.8  # share of the later turns that refer back, where something can be referred to
# after a change of style the words for colours are wrong
CHANGED_TURNS: Mapping[Maker, float] = {images.sketch_segmentation: 1.0}
FREE_TURNS: Mapping[FreeMaker, float] = {
    generation.text_to_image: 0.6,
    generation.text_to_video: 0.15,
    generation.chain_on_new: 0.25,
}
FREE = 0.07  # share of the turns with a medium that ask for a new image or video

_PURPOSE = 72  # first number of the random stream
_ATTEMPTS = 1000
_TRIES, _REFERENCE_TRIES = 24, 10  # of one turn, of one that refers back
_MOST_SHOWN = 4  # images and videos of one conversation


def draw_conversation(
    seed: int, index: int, *, split: Split = "train", phrasing: Phrasing = "train", side: int = 64
) -> Example:
    """Draw one conversation of two to four turns.

    Args:
        seed: Random seed of the world.
        index: Number of the conversation.
        split: Split of the scenes.
        phrasing: Wording of the user messages.
        side: Side of images in pixels.
    """
    return _compose(seed, index, split, phrasing, side)[0].example("conversation")


def draw_turns(
    seed: int,
    index: int,
    *,
    split: Split = "train",
    phrasing: Phrasing = "train",
    side: int = 64,
    references: float = REFERENCES,
    plain: float = 0.0,
) -> list[Drawn]:
    """Draw one conversation as an example for each turn, which ends with the assistant message of that turn.

    Args:
        seed: Random seed of the world.
        index: Number of the conversation.
        split: Split of the scenes.
        phrasing: Wording of the user messages.
        side: Side of images in pixels.
        references: Share of the later turns that refer back, where something can be referred to.
        plain: Share of the turns with an image or a video that are the plainest requests.
    """
    return _compose(seed, index, split, phrasing, side, references, plain)[1]


def _compose(
    seed: int,
    index: int,
    split: Split,
    phrasing: Phrasing,
    side: int,
    references: float = REFERENCES,
    plain: float = 0.0,
) -> tuple[Composer, list[Drawn]]:
    for attempt in range(_ATTEMPTS):
        rng = scene_rng(seed, index, _PURPOSE, attempt)
        number = (index * _ATTEMPTS + attempt) * 997
        draw = Draw(seed=seed, number=number, rng=rng, split=split, phrasing=phrasing, side=side)
        found = _plan(draw, references, plain)
        if found is not None:
            return found
    raise RuntimeError(f"no conversation in {_ATTEMPTS} attempts")


def _plan(draw: Draw, references: float, plain: float) -> tuple[Composer, list[Drawn]] | None:
    count, state = _weighted(draw, dict(zip(TURNS, TURN_SHARES, strict=True))), Composer()
    start, late = _weighted(draw, START), draw.chance(LATE)
    turns = list[Drawn]()
    for turn in range(count):
        is_last = turn == count - 1
        if start != "nothing" and turn == int(late) and not _show(draw, state, start):
            return None
        if (
            turn > int(late)
            and state.num_shown < 2
            and draw.chance(AGAIN)
            and not _show(draw, state, "image")
        ):
            return None
        step = (
            generation.no_call(draw, None, state)
            if late and not turn
            else _turn(draw, state, is_last, references, plain)
        )
        if step is None:
            return None
        state.add(step)
        turns.append(state.drawn())
    return state, turns


def _show(draw: Draw, state: Composer, kind: str) -> bool:
    """Let the user show an image or a video, if one can be drawn."""
    if kind == "video":
        shown = videos.any_video(draw)
    else:
        source = draw.pick(images.any_view, images.crowded_view, editing.plain_view)
        shown = source(draw)
    if shown is not None:
        state.show(shown)
    return shown is not None


def _turn(draw: Draw, state: Composer, is_last: bool, references: float, plain: float) -> Step | None:
    """Return the next turn; one that is not the last needs the results of its calls."""
    view = state.view
    if plain and view is not None and view.natural and draw.chance(plain):
        step = _weighted(draw, PLAIN_VIDEO if view.media.kind == "video" else PLAIN_IMAGE)(draw, view, state)
        return step if step is not None and (is_last or len(step.results) == len(step.calls)) else None
    if draw.chance(SMALL_TALK):
        return generation.no_call(draw, view, state)
    is_free = view is None or draw.chance(FREE)
    refers = (state.subject is not None or state.action is not None) and draw.chance(references)
    for number in range(_TRIES):
        if view is None or is_free:
            step = _weighted(draw, FREE_TURNS)(draw, view, state)
        else:
            turns = _turns(view, refers=refers and number < _REFERENCE_TRIES)
            step = _weighted(draw, turns)(draw, view, state)
        if step is None or state.num_shown + len(step.results) > _MOST_SHOWN + 1:
            continue
        if is_last or len(step.results) == len(step.calls):
            return step
    return None


def _turns(view: View, *, refers: bool) -> Mapping[Maker, float]:
    """Return what may be asked of an image or a video."""
    if not view.natural:
        return CHANGED_TURNS
    if view.media.kind == "video":
        return VIDEO_REFERENCES if refers else VIDEO_TURNS
    return IMAGE_REFERENCES if refers else IMAGE_TURNS


def _weighted(draw: Draw, shares: Mapping[_T, float]) -> _T:
    """Return one of the keys with the probability of its share."""
    names = list(shares)
    weights = [shares[name] for name in names]
    place = draw.rng.random() * sum(weights)
    for name, weight in zip(names, weights, strict=True):
        place -= weight
        if place < 0:
            return name
    return names[-1]
