# SPDX-License-Identifier: Apache-2.0
"""The judgement of models whose worth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from recipes.vitron_tiny.judging import (
    CALLING,
    EXECUTED,
    PARTS,
    SILENT,
    carry_out,
    judge,
    judge_all,
    table,
    toys,
)
from recipes.vitron_tiny.scoring import missed
from recipes.vitron_tiny.tasks import TASKS, draw_example, reply_of
from vitron.data.example import Example


class Oracle:
    """Knows the truth."""

    def generate_batch(self, examples: Sequence[Example], *, constrained: bool = True) -> list[str]:
        return [reply_of(example) for example in examples]

    def masks(self, example: Example, reply: str) -> Mapping[int, NDArray[np.bool_]]:
        return example.masks


class Mute(Oracle):
    """Says one word, whatever is asked."""

    def generate_batch(self, examples: Sequence[Example], *, constrained: bool = True) -> list[str]:
        return ["well"] * len(examples)

    def masks(self, example: Example, reply: str) -> Mapping[int, NDArray[np.bool_]]:
        return {}


class Busy(Oracle):
    """Calls for a mask, whatever is asked, and marks everything."""

    def generate_batch(self, examples: Sequence[Example], *, constrained: bool = True) -> list[str]:
        call = "<module>B</module> <instruction>segment: the star</instruction>"
        return [call if constrained else call + "<module>" for _ in examples]

    def masks(self, example: Example, reply: str) -> Mapping[int, NDArray[np.bool_]]:
        return {0: np.ones_like(example.masks[0])}


def test_tasks_are_silent_or_call() -> None:
    assert set(SILENT) | set(CALLING) == set(TASKS)
    assert not set(SILENT) & set(CALLING)
    assert set(EXECUTED) <= set(CALLING)


def test_oracle_reaches_all() -> None:
    figures = judge_all(Oracle(), seed=0, count=3)
    assert set(figures) == set(PARTS)
    for part in figures.values():
        assert part["spurious_calls"] == part["spurious_calls_all"] == 0
        others = {name: value for name, value in part.items() if not name.startswith("spurious")}
        assert all(value == pytest.approx(1) for value in others.values()), others
    assert missed(figures["test"]) == []
    assert table(figures).count("\n") == 1 + len(figures["test"])


def test_mute_misses_what_calls() -> None:
    lines: list[str] = []
    figures = judge(Mute(), "test", seed=0, count=3, tell=lines.append)
    assert len(lines) == len(TASKS)
    assert figures["module_accuracy"] == figures["instruction_exact"] == figures["execution_rate"] == 0
    assert figures["referring_ciou"] == figures["sketch_ciou"] == figures["region_caption"] == 0
    assert figures["spurious_calls"] == 0
    assert figures["parse_rate"] == 1


def test_busy_calls_without_need() -> None:
    figures = judge(Busy(), "test", seed=0, count=3, tasks=("question", "no_call", "sketch_segmentation"))
    assert figures["spurious_calls"] == 1
    assert figures["parse_rate"] == 0
    assert figures["module_accuracy"] == 1
    assert figures["instruction_exact"] == 0
    assert 0 < figures["sketch_ciou"] < 1
    held = judge(Busy(), "test", seed=0, count=2, tasks=("question",), constrained=True)
    assert held["parse_rate"] == 1


def test_carry_out_tells_alike_from_done() -> None:
    drawn = (draw_example("editing", 0, index) for index in range(50))
    example = next(each for each in drawn if each.group == "recolour")
    truth = reply_of(example)
    colour = example.messages[-1].calls[0].instruction[0].text.split()[-1]
    other = "red" if colour != "red" else "green"
    assert carry_out(toys(), example, truth) == (True, True)
    assert carry_out(toys(), example, truth.replace(f"to {colour}", f"to {other}")) == (True, False)
    assert carry_out(toys(), example, truth.replace(f"to {colour}", "to music")) != (True, True)
    assert carry_out(toys(), example, "I changed it.") == (False, False)
    assert carry_out(toys(), example, truth + truth) == (False, False)
