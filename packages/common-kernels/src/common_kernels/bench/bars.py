# SPDX-License-Identifier: Apache-2.0
"""The promises that a report is held against."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from common_kernels.bench.results import Measurement, Report

SLACK = 1.05
_TOUCHSTONE = {"N": 1024, "k": 128, "head_dim": 32}


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise.

    Attributes:
        name: What was promised.
        limit: In words.
        worst: The worst figure, or ``None`` if nothing of it was measured.
        where: Case and mode of the worst figure.
        misses: How many figures break the limit.
        figures: Of how many.
    """

    name: str
    limit: str
    worst: float | None
    where: str
    misses: int
    figures: int

    @property
    def verdict(self) -> str:
        """``"held"``, ``"missed"`` or ``"not measured"``."""
        if self.worst is None:
            return "not measured"
        return "missed" if self.misses else "held"


Figure = tuple[float, str]


def judge(report: Report) -> list[Bar]:
    """Hold a report against every promise; what was not measured is said to be so."""
    bars = [
        _bar(
            f"`{op}`: time of auto over the best alternative in torch",
            f"at most {SLACK}",
            _against_best(report, op),
            max,
            lambda ratio: ratio <= SLACK,
        )
        for op in ("knn_attention", "knn_dictionary", "stage")
    ]
    touchstone = [
        m for m in report.measurements if m.op == "knn_attention" and _TOUCHSTONE.items() <= m.shape.items()
    ]
    speed = [
        (m.ratio, _place(m))
        for m in touchstone
        if m.contender == "gather" and m.mode == "forward" and m.ratio is not None
    ]
    bars.append(
        _bar("N = 1024, k = 128: time of gather over auto, forward", "at least 15", speed, min, _at_least(15))
    )
    bars.append(
        _bar(
            "N = 1024, k = 128: peak memory of auto over gather's",
            "at most 0.05",
            _memory(touchstone),
            max,
            lambda share: share <= 0.05,
        )
    )
    angles = [
        (m.ratio, _place(m))
        for m in report.measurements
        if m.op == "fuse_phase" and m.contender == "angles" and m.ratio is not None
    ]
    bars.append(
        _bar("`fuse_phase`: time of the angle formula over auto", "at least 2", angles, min, _at_least(2))
    )
    return bars


def _bar(
    name: str,
    limit: str,
    figures: Iterable[Figure],
    worst: Callable[[list[Figure]], Figure],
    holds: Callable[[float], bool],
) -> Bar:
    found = list(figures)
    if not found:
        return Bar(name, limit, None, "", 0, 0)
    value, where = worst(found)
    return Bar(name, limit, value, where, sum(not holds(figure) for figure, _ in found), len(found))


def _at_least(limit: float) -> Callable[[float], bool]:
    return lambda value: value >= limit


def _place(m: Measurement) -> str:
    return f"{m.case}, {m.mode}"


def _against_best(report: Report, op: str) -> list[Figure]:
    """Return the time of auto over that of the fastest other contender, by case and mode."""
    least: dict[tuple[str, str], float] = {}
    for m in report.measurements:
        # paired rounds decide, so a slow moment of the machine does not
        if m.op == op and m.kind in ("backend", "peer") and m.contender != "backend triton" and m.ratio:
            key = (m.case, m.mode)
            least[key] = min(least.get(key, m.ratio), m.ratio)
    return [(1 / ratio, f"{case}, {mode}") for (case, mode), ratio in least.items()]


def _memory(rows: Iterable[Measurement]) -> list[Figure]:
    peaks: dict[tuple[str, str], dict[str, int]] = {}
    for m in rows:
        if m.peak_bytes and m.mode != "backward":
            peaks.setdefault((m.case, m.mode), {})[m.contender] = m.peak_bytes
    return [
        (held["auto"] / held["gather"], f"{case}, {mode}")
        for (case, mode), held in peaks.items()
        if {"auto", "gather"} <= held.keys()
    ]
