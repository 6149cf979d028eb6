# SPDX-License-Identifier: Apache-2.0
"""Scores on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from recipes.vitron_tiny.scoring import (
    box_in,
    box_iou,
    cumulative_iou,
    fit_mask,
    lead_bound,
    lower_bound,
    mean_iou,
    score_message,
    share,
)
from vitron.data.example import Example
from vitron.protocol.contract import Instruction, Invocation
from vitron.protocol.messages import text_message

CALL = Invocation(
    module="image_segmentation", instruction=(Instruction(verb="segment", text="the red star"),)
)
RIGHT = "here it is.<module>image_segmentation</module> <instruction>segment: the red star</instruction>"


def asks(reply: str, *calls: Invocation) -> Example:
    return Example(
        task="any", messages=(text_message("user", "do it"), text_message("assistant", reply, *calls))
    )


def strip(pixels: int, of: int = 100) -> np.ndarray:
    return np.arange(of)[None] < pixels


def test_right_reply() -> None:
    score = score_message(asks("here it is.", CALL), f"{RIGHT}<sig_p0><sig_s0>")
    assert (score.parsed, score.modules, score.instructions, score.text) == (True,) * 4
    assert not score.spurious
    assert score.box is None


@pytest.mark.parametrize(
    ("reply", "modules", "instructions"),
    [
        (RIGHT.replace("red", "blue"), True, False),
        (RIGHT.replace("segment:", "mark:"), True, False),
        (RIGHT.replace("image_segmentation", "image_editing").replace("segment:", "remove:"), False, False),
        ("here it is.", False, False),
        (RIGHT + RIGHT, False, False),
        (RIGHT + " <region>[1, 2, 30, 40]</region>", True, False),
    ],
)
def test_wrong_calls(reply: str, modules: bool, instructions: bool) -> None:
    score = score_message(asks("here it is.", CALL), reply)
    assert (score.modules, score.instructions, score.spurious) == (modules, instructions, False)


def test_letters_name_the_same_module() -> None:
    assert score_message(asks("", CALL), RIGHT.replace("image_segmentation", "B")).instructions


def test_order_of_a_chain_counts() -> None:
    other = CALL.model_copy(update={"instruction": (Instruction(verb="segment", text="the cross"),)})
    second = RIGHT.removeprefix("here it is.").replace("red star", "cross")
    truth = asks("here it is.", CALL, other)
    assert score_message(truth, RIGHT + second).instructions
    assert not score_message(truth, "here it is." + second + RIGHT.removeprefix("here it is.")).instructions


def test_spurious_call_and_broken_reply() -> None:
    assert score_message(asks("two"), RIGHT).spurious
    assert not score_message(asks("two"), "two").spurious
    broken = score_message(asks("here it is.", CALL), "here it is.<module>image_segmentation")
    assert not broken.parsed
    assert not broken.modules


def test_text_is_exact() -> None:
    assert score_message(asks("a red star."), " a red star.").text
    assert not score_message(asks("a red star."), "a red star").text


def test_boxes() -> None:
    assert box_iou((0, 0, 2, 2), (0, 0, 2, 2)) == pytest.approx(1)
    assert box_iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 1, 1), (2, 2, 3, 3)) == 0
    assert box_in("a star [0, 0, 999, 999]") is not None
    assert box_in("[5, 5]") is None
    assert box_in("] [") is None
    truth = asks("a red star [0, 0, 400, 400]")
    found = score_message(truth, "a red star [0, 0, 400, 200]").box
    assert found == pytest.approx(0.5)
    assert score_message(truth, "a red star [400, 0, 0, 200]").box == 0
    assert score_message(truth, "a red star").box == 0


def test_cumulative_is_not_mean() -> None:
    """Areas 1 of 2 and 90 of 100 give 91 / 102, whose mean of shares is 0.7."""
    pairs = [(strip(1), strip(2)), (strip(90), strip(100))]
    assert cumulative_iou(pairs) == pytest.approx(91 / 102, abs=1e-6)
    assert mean_iou(pairs) == pytest.approx(0.7, abs=1e-6)


def test_empty_masks() -> None:
    nothing, something = strip(0), strip(10)
    assert cumulative_iou([(nothing, nothing)]) == 1
    assert cumulative_iou([(nothing, something)]) == 0
    # a video of two frames, the object gone in the second: half is right by saying nothing
    truth = np.stack([something, nothing])
    assert mean_iou([(np.zeros_like(truth), truth)]) == pytest.approx(0.5)


def test_fitted_replaces_what_cannot_be_compared() -> None:
    truth = strip(10)
    assert fit_mask(truth, truth) is truth
    assert not fit_mask(None, truth).any()
    assert not fit_mask(truth.T, truth).any()


def test_share_needs_verdicts() -> None:
    assert share([True, False, False, True]) == 0.5
    with pytest.raises(ValueError, match="at least one"):
        share([])


def test_bound_of_a_lead_is_paired() -> None:
    """72 of 100 against 50: the more often the two disagree, the wider the interval."""
    own = [True] * 72 + [False] * 28
    nested = [True] * 50 + [False] * 50
    assert lead_bound(own, nested) == pytest.approx(0.22 - 1.96 * (0.22 * 0.78 / 99) ** 0.5, abs=1e-4)
    assert lead_bound(own, nested[::-1]) < lead_bound(own, nested)
    assert lead_bound(own, own) == 0
    assert lead_bound([True], [False]) == -1  # one question shows nothing


def test_lower_bound_of_wilson() -> None:
    """81 of 100: 0.7222 (Wilson, 95 %); all of few is far from certain."""
    assert lower_bound(81, 100) == pytest.approx(0.7222, abs=1e-3)
    assert lower_bound(10, 10) == pytest.approx(0.7225, abs=1e-3)
    assert lower_bound(0, 5) == 0
    assert lower_bound(990, 1000) > lower_bound(99, 100)
