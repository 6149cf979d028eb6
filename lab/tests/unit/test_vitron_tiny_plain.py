# SPDX-License-Identifier: Apache-2.0
"""The plainest requests: their turns, and their score by models that are known to be right or wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from recipes.vitron_tiny.plain import CASES, draw_plain, judge_plain
from recipes.vitron_tiny.tasks import assistant_text
from vitron.data.example import Example


class Oracle:
    """A model that knows the true message, or always says yes."""

    def __init__(self, *, is_wrong: bool = False) -> None:
        self.is_wrong = is_wrong

    def generate_batch(self, examples: Sequence[Example], *, constrained: bool = True) -> list[str]:
        return ["yes" if self.is_wrong else assistant_text(each) for each in examples]

    def masks(
        self, examples: Sequence[Example], replies: Sequence[str]
    ) -> list[dict[int, NDArray[np.bool_]]]:
        return [{} for _ in examples]


@pytest.mark.parametrize("case", CASES)
def test_a_case_ends_with_its_request(case: str) -> None:
    drawn = draw_plain(case, 9, 1)
    assert drawn.turn == len(CASES[case])
    assert drawn.example.messages == draw_plain(case, 9, 1).example.messages
    asked, answered = drawn.example.messages[-2].text, drawn.example.messages[-1]
    (call,) = answered.calls
    assert call.instruction[0].verb == case.split()[0].strip(",")
    named = " ".join(asked.split()[1:])
    assert call.instruction[0].text.replace(" to ", " ") == named
    shown = [part for part in drawn.example.messages[0].content if part.type == "media"]
    assert len(shown) == 1


def test_right_and_wrong_models_are_told_apart() -> None:
    right = judge_plain(Oracle(), seed=9, count=2)
    wrong = judge_plain(Oracle(is_wrong=True), seed=9, count=2)
    assert {row["right_call"] for row in right.values()} == {1.0}
    assert {row["right_call"] for row in wrong.values()} == {0.0}
    assert all(0 < row["lower"] < 1 for row in right.values())
