# SPDX-License-Identifier: Apache-2.0
"""Gates: bounds over seeds, what they let pass, and the log of readings."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from recipes.gates import Requirement, add_reading, bound, flat, fresh_seeds, mean, missed


def test_bounds_hold_in_975_of_1000_readings() -> None:
    draws = np.random.default_rng(0).normal(2.0, 0.5, (4000, 3))
    covered = np.mean([bound(list(map(float, row))) <= 2.0 for row in draws])
    assert 0.965 < covered < 0.985
    assert bound([1.0, 1.0, 1.0]) == 1.0
    assert bound([1.0, 3.0], upper=True) == pytest.approx(4 - bound([1.0, 3.0]))


def test_one_seed_bounds_nothing() -> None:
    assert (bound([0.9]), bound([0.9], upper=True)) == (-inf, inf)
    with pytest.raises(ValueError, match="at least 3 seeds, got 2"):
        fresh_seeds(5, 2)
    assert fresh_seeds(7000, 3) == (7000, 7010, 7020)


def test_a_mean_above_its_requirement_is_missed_if_seeds_spread() -> None:
    wanted = [Requirement(figure="part.right", at_least=0.9)]
    assert not missed(wanted, [{"part": {"right": value}} for value in (0.93, 0.94, 0.93)])
    (line,) = missed(wanted, [{"part": {"right": value}} for value in (0.88, 0.99, 0.96)])
    assert line.startswith("part.right at least 0.9: 0.9433, with its 95 % bound 0.802")


def test_counted_bounds_come_before_those_over_seeds() -> None:
    wanted = [Requirement(figure="spurious", at_most=0.01)]
    runs = [{"spurious": 0.0}] * 3
    assert not missed(wanted, runs)
    assert missed(wanted, runs, {"spurious": 0.0, "spurious_upper": 0.02})


def test_what_may_never_happen_is_judged_by_itself_and_what_is_missing_is_missed() -> None:
    never = [Requirement(figure="malformed", at_most=0)]
    assert not missed(never, [{"malformed": 0.0}])
    assert missed(never, [{"malformed": 0.001}])
    assert missed([Requirement(figure="other", at_least=1)], [{"malformed": 0.0}]) == [
        "other at least 1: not measured"
    ]


def test_means_keep_groups_and_leave_out_what_is_no_number() -> None:
    runs = [{"a": {"b": 1.0, "name": "x"}, "c": 2}, {"a": {"b": 2.0, "name": "x"}, "d": 3}]
    assert mean(runs) == {"a": {"b": 1.5}}
    assert flat(runs[0]) == {"a.b": 1.0, "c": 2.0}


def test_each_reading_is_logged() -> None:
    card: dict[str, object] = {"name": "x"}
    for number in range(2):
        card["readings"] = add_reading(card, seeds=(1, 2, 3), digest="0" * 64, misses=["a"] * number)
    assert [each["missed"] for each in card["readings"]] == [0, 1]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
