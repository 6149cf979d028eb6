# SPDX-License-Identifier: Apache-2.0
"""Edits by the installed specialists, beside what is known to be right."""

from __future__ import annotations

import numpy as np
import pytest
from recipes.vitron_tiny import installed
from recipes.vitron_tiny.tasks import draw_task
from vitron.model.engine import Vitron


@pytest.fixture(scope="module")
def model() -> Vitron:
    return Vitron.from_pretrained("vitron-tiny", device="cpu", dtype="float32")


@pytest.mark.parametrize("task", installed.TASKS.values())
def test_an_edit_comes_nearer_to_the_truth(model: Vitron, task: str) -> None:
    """Training scenes, of which hardly any is answered wrongly."""
    found = list[tuple[float, float, float]]()
    for index in range(12):
        drawn = draw_task(task, 4, index)
        message, calls = drawn.example.messages[0], drawn.example.messages[-1].calls
        kinds = {call.instruction[0].verb for call in calls}
        if kinds <= {"add", "replace"} or any(part.type == "region" for part in message.content):
            continue
        found.append(installed._judged(model, drawn, calls[0]))
    ran, error, unchanged = np.array(found).T
    assert ran.mean() > 0.7
    assert np.nanmean(error) < 0.5 * np.nanmean(unchanged)


def test_the_difference_is_of_the_frames_that_both_have() -> None:
    short, long = np.zeros((2, 3, 3, 3), np.uint8), np.full((5, 3, 3, 3), 51, np.uint8)
    assert installed._difference(short, long) == pytest.approx(0.2)
    assert installed._difference(short[:1], long) == pytest.approx(0.2)  # an image rests


def test_the_table_has_a_row_for_each_edit(recipes) -> None:
    table = recipes("vitron", "edits", "--seed", "4001", "--count", "10").stdout
    assert "| video editing: foreground | 2 |" in table
    assert "| image to video: animate | 2 |" in table
