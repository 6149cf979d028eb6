# SPDX-License-Identifier: Apache-2.0
"""Figures with their 95 % confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from vitron.evaluation.metrics import ciou

__all__ = ["Figure", "ciou_figure", "mean_figure"]

RESAMPLES = 2000
_BLOCK = 4_000_000  # numbers that are drawn at once


class Figure(NamedTuple):
    """One measured number.

    Attributes:
        value: The number.
        low: Lower end of the confidence interval.
        high: Upper end.
        samples: Number of samples.
    """

    value: float
    low: float
    high: float
    samples: int


def mean_figure(values: Sequence[float]) -> Figure:
    """Return the mean of some values, with Wilson's interval if they are all 0 or 1, else by the bootstrap.

    Args:
        values: At least one value, one for each sample.

    Example:
        >>> tuple(round(each, 3) for each in mean_figure([1, 1, 1, 0]))
        (0.75, 0.301, 0.954, 4)
    """
    known = np.asarray(values, dtype=np.float64)
    value, count = float(known.mean()), len(known)
    if np.isin(known, (0.0, 1.0)).all():
        interval = binomtest(int(known.sum()), count).proportion_ci(method="wilson")
        return Figure(value, float(interval.low), float(interval.high), count)
    return Figure(value, *_bootstrap(count, lambda chosen: known[chosen].mean(axis=1)), count)


def ciou_figure(overlaps: Sequence[tuple[int, int]]) -> Figure:
    """Return cIoU, with an interval by the bootstrap over samples.

    Args:
        overlaps: Pixels of intersection and union of each sample; at least one.
    """
    shared, covered = np.asarray(overlaps, dtype=np.float64).T

    def resampled(chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        sums = covered[chosen].sum(axis=1)
        return np.where(sums > 0, shared[chosen].sum(axis=1) / np.maximum(sums, 1), 1.0)

    return Figure(ciou(overlaps), *_bootstrap(len(overlaps), resampled), len(overlaps))


def _bootstrap(
    count: int, statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]]
) -> tuple[float, float]:
    """Return the 2.5 and 97.5 percentiles of a statistic over samples drawn with replacement, seed 0."""
    rng, size = np.random.default_rng(0), max(1, _BLOCK // count)
    rounds = [min(size, RESAMPLES - start) for start in range(0, RESAMPLES, size)]
    drawn = np.concatenate([statistic(rng.integers(0, count, (each, count))) for each in rounds])
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(low), float(high)
