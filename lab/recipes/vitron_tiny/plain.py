# SPDX-License-Identifier: Apache-2.0
"""The plainest requests, as the first turn and behind others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from shapeworld import scene_rng

from recipes.vitron_tiny import images
from recipes.vitron_tiny.composing import Composer, Drawn
from recipes.vitron_tiny.evaluation import EvaluatedModel, judge
from recipes.vitron_tiny.plain_requests import Maker, hello, recolour, remove, segment
from recipes.vitron_tiny.scenes import Draw, View
from recipes.vitron_tiny.scoring import lower_bound

__all__ = ["CASES", "draw_plain", "judge_plain"]

_PURPOSE, _ATTEMPTS = 74, 1000


CASES: Mapping[str, Sequence[Maker]] = {
    "segment, turn 1": (segment,),
    "remove, turn 1": (remove,),
    "recolour, turn 1": (recolour,),
    "segment behind a caption": (images.caption, segment),
    "segment behind hello": (hello, segment),
    "remove behind hello": (hello, remove),
    "remove, turn 3, behind a caption and a mask": (images.caption, segment, remove),
    "recolour, turn 4, behind hello, a caption and a mask": (hello, images.caption, segment, recolour),
}
"""Turns of each case; the last one is judged. An image is shown with the first."""


def draw_plain(case: str, seed: int, index: int) -> Drawn:
    """Draw a conversation of a case, on a scene of the test split.

    Args:
        case: One of :data:`CASES`.
        seed: Random seed of the world.
        index: Number of the conversation.
    """
    for attempt in range(_ATTEMPTS):
        rng = scene_rng(seed, index, _PURPOSE, attempt)
        number = (index * _ATTEMPTS + attempt) * 997
        draw = Draw(seed=seed, number=number, rng=rng, split="test", phrasing="held_out", side=64)
        shown = images.any_view(draw)
        found = None if shown is None else _composed(draw, shown, CASES[case])
        if found is not None:
            return found
    raise RuntimeError(f"no conversation in {_ATTEMPTS} attempts")


def _composed(draw: Draw, shown: View, makers: Sequence[Maker]) -> Drawn | None:
    state = Composer()
    state.show(shown)
    for place, make in enumerate(makers):
        assert state.view is not None
        step = make(draw, state.view, state)
        if step is None or (place + 1 < len(makers) and len(step.results) < len(step.calls)):
            return None
        state.add(step)
    return replace(state.drawn(), form="plain")


def judge_plain(
    model: EvaluatedModel, *, seed: int, count: int, batch_size: int = 32
) -> dict[str, dict[str, float]]:
    """Return the share of right modules and right calls in each case, and the lower 95 % bound of the latter.

    Args:
        model: Model.
        seed: Random seed of the examples.
        count: Number of conversations of each case.
        batch_size: Number of conversations per batch.
    """
    table: dict[str, dict[str, float]] = {}
    for case in CASES:
        turns = [draw_plain(case, seed, index) for index in range(count)]
        scores = [each.score for each in judge(model, turns, batch_size=batch_size, execute=False)]
        right = sum(score.instructions for score in scores)
        table[case] = {
            "modules": sum(score.modules for score in scores) / count,
            "right_call": right / count,
            "lower": lower_bound(right, count),
        }
    return table
