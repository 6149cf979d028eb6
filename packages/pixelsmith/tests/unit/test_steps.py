# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from pixelsmith.core.steps import auto_fraction, plan_steps


def kinds(steps):
    return (
        [k for k in range(steps.num_steps) if steps.fuses(k)],
        [k for k in range(steps.num_steps) if steps.masks(k)],
        [k for k in range(steps.num_steps) if steps.is_ordered(k)],
    )


@pytest.mark.parametrize(
    ("slider", "expected"),
    [
        (0, ([], [], [])),
        (1, ([0], [], [])),
        (3, ([0, 1, 2], [0, 1], [])),
        (5, ([0, 1, 2, 3, 4], [0, 1, 2, 3], [])),
    ],
)
def test_guided_steps_of_parallel_mode(toys, slider, expected):
    assert kinds(plan_steps(toys.job(slider=slider), 5)) == expected


@pytest.mark.parametrize(("slider", "expected"), [(1, ([], [], [])), (3, ([1, 2], [0, 1], [1, 2]))])
def test_guided_steps_of_official_mode(toys, slider, expected):
    """Step 0 fuses a tensor with itself; the last guided step has no mask; guided steps are ordered."""
    assert kinds(plan_steps(toys.job(slider=slider, mode="official"), 5)) == expected


def test_switches_turn_things_off(toys):
    assert kinds(plan_steps(toys.job(slider=3, fusion="off", mask=False), 5)) == ([], [], [])


def test_fractions_and_auto(toys):
    assert plan_steps(toys.job(slider=0.5), 50).guided == 25
    assert plan_steps(toys.job(slider=1.0), 50).guided == 50
    assert plan_steps(toys.job(slider="auto"), 20, scale=2).guided == 18
    assert plan_steps(toys.job(slider="auto"), 20, scale=4).guided == 19
    assert [auto_fraction(scale) for scale in (0.1, 1, 1000)] == [0.85, 0.85, 0.95]


def test_auto_of_official_mode_is_that_of_the_authors(toys):
    job = toys.job(slider="auto", mode="official")
    assert [plan_steps(job, 50, scale=scale).guided for scale in (2, 4)] == [20, 30]
    assert [auto_fraction(scale, published=True) for scale in (0.1, 1000)] == [0.2, 0.8]


def test_more_guided_steps_than_steps_are_refused(toys):
    with pytest.raises(ValueError, match="slider must not exceed the 5 steps, got 6"):
        plan_steps(toys.job(slider=6), 5)
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        plan_steps(toys.job(), 0)


def test_a_map_is_stretched_over_the_canvas(toys):
    steps = plan_steps(toys.job(slider=((0.0, 1.0),)), 4)
    rows, columns = np.arange(3), np.arange(6)
    expected = torch.tensor([0, 0, 0, 4, 4, 4]).expand(3, 6)
    assert torch.equal(steps.guided_at(rows, columns, (3, 6)), expected)
    assert steps.guided == 4
    assert plan_steps(toys.job(), 8).guided_at(rows, columns, (3, 6)) is None
