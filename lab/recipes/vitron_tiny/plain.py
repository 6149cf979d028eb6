# SPDX-License-Identifier: Apache-2.0
"""The plainest requests, as the first turn and behind others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from shapeworld import scene_rng

from recipes.vitron_tiny import editing, generation, images
from recipes.vitron_tiny.composing import Composer, Drawn, Step, Subject
from recipes.vitron_tiny.evaluation import EvaluatedModel, judge
from recipes.vitron_tiny.scenes import Draw, View, noun
from recipes.vitron_tiny.scoring import lower_bound

__all__ = ["CASES", "draw_plain", "judge_plain"]

Maker = Callable[[Draw, View, Composer], Step | None]
_PURPOSE, _ATTEMPTS = 74, 1000


def _hello(draw: Draw, shown: View, state: Composer) -> Step:
    _, reply = generation.CHAT["greeting"]
    return Step(task="no_call", text="hello", reply=reply, group="greeting")


def _segment(draw: Draw, shown: View, state: Composer) -> Step:
    target, name = _named(draw, shown)
    return images.segment(draw, shown, state, name, (target,), text=f"segment {name}")


def _remove(draw: Draw, shown: View, state: Composer) -> Step | None:
    target, name = _named(draw, shown)
    subject = Subject(targets=(target,), phrase=name)
    return editing.edit(draw, shown, state, "remove", subject, text=f"remove {name}")


def _recolour(draw: Draw, shown: View, state: Composer) -> Step | None:
    target, name = _named(draw, shown)
    to, subject = (
        editing.draw_change(draw, shown, target, "recolour"),
        Subject(targets=(target,), phrase=name),
    )
    return editing.edit(draw, shown, state, "recolour", subject, text=f"make {name} {to}", to=to)


def _named(draw: Draw, shown: View) -> tuple[int, str]:
    target = int(draw.rng.integers(len(shown.scene.things)))
    return target, f"the {noun(shown.scene.things[target])}"


CASES: Mapping[str, Sequence[Maker]] = {
    "segment, turn 1": (_segment,),
    "remove, turn 1": (_remove,),
    "recolour, turn 1": (_recolour,),
    "segment behind a caption": (images.caption, _segment),
    "segment behind hello": (_hello, _segment),
    "remove behind hello": (_hello, _remove),
    "remove, turn 3, behind a caption and a mask": (images.caption, _segment, _remove),
    "recolour, turn 4, behind hello, a caption and a mask": (_hello, images.caption, _segment, _recolour),
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
