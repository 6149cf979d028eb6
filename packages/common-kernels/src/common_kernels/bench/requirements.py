# SPDX-License-Identifier: Apache-2.0
"""The requirements that a report is checked against."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from common_kernels.bench.results import Measurement, Report

SLACK = 1.05
_TYPICAL_SHAPE = {"N": 1024, "k": 128, "head_dim": 32}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement and whether a report meets it.

    Attributes:
        name: Measured quantity.
        target: Limit of the quantity, in words.
        worst: Worst figure, or ``None`` if nothing of it was measured.
        where: Case and mode of the worst figure.
        misses: Number of figures that miss the target.
        figures: Number of figures.
    """

    name: str
    target: str
    worst: float | None
    where: str
    misses: int
    figures: int

    @property
    def result(self) -> str:
        """``"met"``, ``"missed"`` or ``"not measured"``."""
        if self.worst is None:
            return "not measured"
        return "missed" if self.misses else "met"


Figure = tuple[float, str]


def check_requirements(report: Report) -> list[Requirement]:
    """Check a report against every requirement; one without figures is "not measured"."""
    found = [
        _requirement(
            f"`{op}`: time of auto over the best alternative in torch",
            f"at most {SLACK}",
            _against_best(report, op),
            max,
            lambda ratio: ratio <= SLACK,
        )
        for op in ("knn_attention", "knn_dictionary", "stage")
    ]
    typical = [
        m
        for m in report.measurements
        if m.op == "knn_attention" and _TYPICAL_SHAPE.items() <= m.shape.items()
    ]
    speed = [
        (m.ratio, _place(m))
        for m in typical
        if m.contender == "gather" and m.mode == "forward" and m.ratio is not None
    ]
    found.append(
        _requirement(
            "N = 1024, k = 128: time of gather over auto, forward", "at least 15", speed, min, _at_least(15)
        )
    )
    found.append(
        _requirement(
            "N = 1024, k = 128: peak memory of auto over gather's",
            "at most 0.05",
            _memory(typical),
            max,
            lambda share: share <= 0.05,
        )
    )
    angles = [
        (m.ratio, _place(m))
        for m in report.measurements
        if m.op == "fuse_phase" and m.contender == "angles" and m.ratio is not None
    ]
    found.append(
        _requirement(
            "`fuse_phase`: time of the angle formula over auto", "at least 2", angles, min, _at_least(2)
        )
    )
    return found + _of_compiled_kernels(report)


def _of_compiled_kernels(report: Report) -> list[Requirement]:
    """Check what the backend ``native`` is built for, where it is what auto took."""
    rows = report.measurements
    taken = {(m.op, m.case) for m in rows if m.kind == "auto" and m.note == "native"}
    mine = [m for m in rows if (m.op, m.case) in taken and m.ratio is not None]
    attention = [m for m in mine if m.op == "knn_attention"]
    sparse = [m for m in attention if m.shape["N"] in (256, 1024) and 4 * m.shape["k"] <= m.shape["N"]]
    long = [m for m in attention if m.shape["N"] == 4096 and m.shape["k"] == 64]
    wanted: list[tuple[str, float, list[Figure]]] = [
        ("`native`: time of gather over auto, forward", 60, _ratios(attention, "gather", "forward")),
        ("`native`: time of gather over auto, both", 34, _ratios(attention, "gather", "both")),
        (
            "`native`, k/N up to 1/4: time of SDPA over auto, forward",
            2.3,
            _best(sparse, ("SDPA, boolean mask", "SDPA, float mask"), "forward"),
        ),
        (
            "`native`, N = 4096, k = 64: time of SDPA over auto, forward",
            15,
            _best(long, ("SDPA, boolean mask", "SDPA, float mask"), "forward"),
        ),
        ("`native`, N = 4096, k = 64: time of csr over auto", 2, _ratios(long, "backend csr", "forward")),
        (
            "`native`: time of matmul and unsorted top-k over auto",
            1,
            _ratios([m for m in mine if m.op == "knn_dictionary"], "matmul, unsorted top-k", "forward"),
        ),
        (
            "`native`: time of the angle formula over auto",
            2.8,
            _ratios([m for m in mine if m.op == "fuse_phase"], "angles", "forward"),
        ),
    ]
    return [
        _requirement(name, f"at least {limit:g}", figures, min, _at_least(limit))
        for name, limit, figures in wanted
        if figures
    ]


def _ratios(rows: Iterable[Measurement], contender: str, mode: str) -> list[Figure]:
    return [
        (m.ratio, _place(m))
        for m in rows
        if m.contender == contender and m.mode == mode and m.ratio is not None
    ]


def _best(rows: Iterable[Measurement], contenders: tuple[str, ...], mode: str) -> list[Figure]:
    """Return the lower ratio of several contenders for each case."""
    least: dict[str, float] = {}
    for contender in contenders:
        for ratio, where in _ratios(rows, contender, mode):
            least[where] = min(ratio, least.get(where, ratio))
    return [(ratio, where) for where, ratio in least.items()]


def _requirement(
    name: str,
    target: str,
    figures: Iterable[Figure],
    worst: Callable[[list[Figure]], Figure],
    holds: Callable[[float], bool],
) -> Requirement:
    values = list(figures)
    if not values:
        return Requirement(name, target, None, "", 0, 0)
    value, where = worst(values)
    return Requirement(
        name, target, value, where, sum(not holds(figure) for figure, _ in values), len(values)
    )


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
