# SPDX-License-Identifier: Apache-2.0
"""Figures of several methods on the same images, with 95 % intervals over the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

RESAMPLES = 1000
QUANTILES = (0.025, 0.975)


class Scores(Protocol):
    """What one method got on each image."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def over(self, weights: Float) -> Float:
        """Return the figure when images count so many times, ``(R, N)`` to ``(R,)``."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """A number per image, of which the mean is reported.

    Attributes:
        values: One for each image.
        counts: Weight of each image, such as its number of points; 1 if ``None``.
    """

    values: Sequence[float]
    counts: Sequence[float] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def over(self, weights: Float) -> Float:
        """Return means."""
        counts = np.ones(len(self.values)) if self.counts is None else np.asarray(self.counts, np.float64)
        return weights @ (counts * np.asarray(self.values, np.float64)) / np.maximum(weights @ counts, 1e-9)


@dataclass(frozen=True, slots=True, eq=False)
class Confusions:
    """A confusion matrix per image, of which the mean IoU of the classes is reported, in per cent.

    Attributes:
        matrices: ``(N, K, K)``: row true, column found.
    """

    matrices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.matrices)

    def over(self, weights: Float) -> Float:
        """Return mean IoUs of the summed matrices; a class that is nowhere stays out."""
        size = self.matrices.shape[1]
        flat = self.matrices.reshape(len(self.matrices), -1).astype(np.float64)
        summed = (weights @ flat).reshape(-1, size, size)
        hits = np.diagonal(summed, axis1=1, axis2=2)
        unions = summed.sum(axis=1) + summed.sum(axis=2) - hits
        iou = np.where(unions > 0, hits / np.maximum(unions, 1), np.nan)
        return 100 * np.nanmean(iou, axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Several methods on the same images.

    Attributes:
        title: What is measured, with its unit.
        rows: Scores by method.
        ours: Method that is judged.
        baselines: Methods to beat; the best of them is compared with.
        ceiling: Method that cannot be beaten; none if empty.
        lower_is_better: Whether small figures are good.
        unit: What a row has one score of.
    """

    title: str
    rows: Mapping[str, Scores]
    ours: str
    baselines: tuple[str, ...] = ()
    ceiling: str = ""
    lower_is_better: bool = False
    unit: str = "images"

    def summary(self) -> dict[str, Any]:
        """Return all figures with their intervals, and the gain of ours over the best baseline."""
        count = len(self.rows[self.ours])
        plain = np.ones((1, count))
        # one stream for all rows: differences between methods are of the same images
        weights = (
            np.random.default_rng(0).multinomial(count, [1 / count] * count, RESAMPLES).astype(np.float64)
        )
        points = {name: float(scores.over(plain)[0]) for name, scores in self.rows.items()}
        drawn = {name: scores.over(weights) for name, scores in self.rows.items()}
        found: dict[str, Any] = {
            "title": self.title,
            "count": count,
            "unit": self.unit,
            "ours": self.ours,
            "rows": {name: _interval(points[name], drawn[name]) for name in self.rows},
        }
        if self.ceiling:
            found["ceiling"] = self.ceiling
        if self.baselines:
            sign = -1 if self.lower_is_better else 1
            best = max(self.baselines, key=lambda name: sign * points[name])
            gain = sign * (points[self.ours] - points[best])
            found["gain"] = {"over": best, **_interval(gain, sign * (drawn[self.ours] - drawn[best]))}
        return found


def _interval(point: float, drawn: Float) -> dict[str, float]:
    lower, upper = np.nanquantile(drawn, QUANTILES).tolist()
    return {"value": _short(point), "lower": _short(lower), "upper": _short(upper)}


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def markdown(summary: Mapping[str, Any]) -> str:
    """Return a summary as a Markdown table."""
    gain = summary.get("gain")
    lines = [
        f"| {summary['title']} ({summary['count']} {summary['unit']}) | value | 95 % interval |",
        "| --- | --- | --- |",
    ]
    for name, row in summary["rows"].items():
        shown = f"**{name}**" if name == summary["ours"] else name
        ending = ", ceiling" if name == summary.get("ceiling") else ""
        lines.append(f"| {shown}{ending} | {row['value']:.4g} | {row['lower']:.4g} to {row['upper']:.4g} |")
    if gain is not None:
        reach = f"{gain['lower']:+.3g} to {gain['upper']:+.3g}"
        lines.append(f"| gain over {gain['over']} | {gain['value']:+.3g} | {reach} |")
    return "\n".join(lines)
