# SPDX-License-Identifier: Apache-2.0
"""Gates: a requirement holds if its figure reaches it at the 95 % bound over fresh seeds, not on a point."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import t

__all__ = ["SEEDS", "Requirement", "add_reading", "bound", "flat", "fresh_seeds", "mean", "missed"]

SEEDS = 3
"""Least number of seeds of a gate."""

QUANTILE = 0.975  # of the 95 % interval

Figures = Mapping[str, Any]
"""Figures by name, in groups of groups; what is no number is left out of means and bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """A bound that a figure has to reach.

    Attributes:
        figure: Name of the figure behind those of its groups, such as ``test.modules``.
        at_least: Smallest value; ``None`` if ``at_most`` is given.
        at_most: Largest value; 0 is a property of every example, so the figure itself is judged.
        is_target: Whether a miss is reported but does not close the gate.
    """

    figure: str
    at_least: float | None = None
    at_most: float | None = None
    is_target: bool = False

    def __str__(self) -> str:
        wanted = f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"
        return f"{self.figure} {wanted}"

    def limit(self, pooled: Mapping[str, float], runs: Sequence[Mapping[str, float]]) -> float | None:
        """Return the 95 % bound of the figure on the side of the requirement; ``None`` if not measured.

        A bound that is known from counts, under the name of the figure and ``_lower`` or ``_upper``, is used;
        else Student's t over the seeds gives it.

        Args:
            pooled: Flat figures of all seeds together.
            runs: Flat figures of each seed.
        """
        if self.at_most == 0:
            return pooled.get(self.figure)
        counted = pooled.get(f"{self.figure}_{'upper' if self.at_least is None else 'lower'}")
        if counted is not None:
            return counted
        values = [run[self.figure] for run in runs if self.figure in run]
        return bound(values, upper=self.at_least is None) if values else None

    def is_met(self, value: float) -> bool:
        """Return whether a value reaches the requirement."""
        if self.at_least is not None:
            return value >= self.at_least
        assert self.at_most is not None
        return value <= self.at_most


def bound(values: Sequence[float], *, upper: bool = False) -> float:
    """Return a bound of the 95 % interval of the mean over seeds; infinitely far off for a single seed.

    Args:
        values: Figure of each seed.
        upper: Return the upper bound instead of the lower.
    """
    if len(values) < 2:
        return float("inf") if upper else float("-inf")
    reach = float(t.ppf(QUANTILE, len(values) - 1) * np.std(values, ddof=1)) / len(values) ** 0.5
    return fmean(values) + (reach if upper else -reach)


def missed(
    requirements: Sequence[Requirement], runs: Sequence[Figures], pooled: Figures | None = None
) -> list[str]:
    """Return which requirements are missed or were not measured, a line each: point and bound.

    Args:
        requirements: What has to be reached; those that are only targets are left out by the caller.
        runs: Figures of each seed.
        pooled: Figures of all seeds together; by default their mean.
    """
    together, apart = flat(pooled if pooled is not None else mean(runs)), [flat(run) for run in runs]
    lines: list[str] = []
    for each in requirements:
        value = each.limit(together, apart)
        if value is None:
            lines.append(f"{each}: not measured")
        elif not each.is_met(value):
            lines.append(f"{each}: {together[each.figure]:.4g}, with its 95 % bound {value:.4g}")
    return lines


def flat(figures: Figures) -> dict[str, float]:
    """Return all numbers of nested figures by dotted names."""
    return dict(_numbers(figures, ""))


def _numbers(figures: Figures, lead: str) -> Iterator[tuple[str, float]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{lead}{name}.")  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{lead}{name}", float(value)


def mean(runs: Sequence[Figures], digits: int = 4) -> dict[str, Any]:
    """Return the mean over seeds of figures that all seeds have, in the groups of the first.

    Args:
        runs: Figures of each seed.
        digits: Significant digits.
    """
    found: dict[str, Any] = {}
    for name, value in runs[0].items():
        others = [run[name] for run in runs if name in run]
        if isinstance(value, Mapping):
            found[name] = mean(others, digits)
        elif len(others) == len(runs) and isinstance(value, int | float):
            found[name] = float(f"{fmean(others):.{digits}g}")
    return found


def fresh_seeds(first: int, count: int) -> tuple[int, ...]:
    """Return the seeds of a reading: each is far from the next, as recipes use those that follow.

    Args:
        first: First seed.
        count: Number of seeds.

    Raises:
        ValueError: If there are fewer than a gate needs.
    """
    if count < SEEDS:
        raise ValueError(f"a gate needs at least {SEEDS} seeds, got {count}")
    return tuple(first + 10 * number for number in range(count))


def add_reading(
    card: Mapping[str, Any], *, seeds: Sequence[int], digest: str, misses: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the log of a card with one reading of test seeds more.

    Args:
        card: Card as it was.
        seeds: Test seeds that were read.
        digest: SHA-256 of the weights.
        misses: Requirements that were missed.
    """
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    reading = {"date": today, "seeds": list(seeds), "weights_sha256": digest, "missed": len(misses)}
    return [*card.get("readings", []), reading]
