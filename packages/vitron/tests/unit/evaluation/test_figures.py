# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vitron.evaluation import ciou, ciou_figure, mean_figure


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # by hand, z = 1.959964: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    [(0, 10, 0, 0.2775328), (10, 10, 0.7224672, 1), (81, 100, 0.7222, 0.8749)],
)
def test_shares_have_wilsons_interval(right, count, low, high):
    found = mean_figure([1] * right + [0] * (count - right))
    assert found.value == right / count
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_intervals_of_other_means_cover_the_true_mean():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(60):
        found = mean_figure(rng.beta(2, 5, 80))
        covered += found.low <= 2 / 7 <= found.high
    assert covered >= 52  # 95 % of 60 are 57; fewer than 52 has a probability of 0.1 %


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=30))
def test_ciou_lies_in_its_interval(pairs):
    overlaps = [(min(pair), max(pair)) for pair in pairs]
    found = ciou_figure(overlaps)
    assert found.value == ciou(overlaps)
    assert 0 <= found.low <= found.high <= 1
    ratios = [shared / covered if covered else 1 for shared, covered in overlaps]
    assert min(ratios) - 1e-9 <= found.low
    assert found == ciou_figure(overlaps)


def test_many_samples_are_drawn_in_blocks():
    values = np.random.default_rng(0).random(30_000)
    found = mean_figure(values)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / len(values) ** 0.5, rel=0.1)
