# SPDX-License-Identifier: Apache-2.0
"""The promises that a report of two CPU cores is held against."""

from __future__ import annotations

from typing import Any

from common_kernels.bench.report import Report, groups

_SLACK = 1.05
_ANCHOR = "B1 H6 N1024 d32 k128"


def judge(report: Report) -> list[dict[str, Any]]:
    """Return each promise with what was measured, its limit and whether it held.

    A promise whose case was not measured is left out, and so are all of them for a GPU's report.
    """
    if "NVIDIA" in report["machine"]["device"]:
        return []
    bars: list[dict[str, Any]] = []
    worst = 0.0
    for op, mode, case, rows in groups(report):
        timed = {name: r["median_ms"] for name, r in rows.items() if r["status"] == "ok"}
        if "auto" not in timed:
            continue
        rivals = [time for name, time in timed.items() if name != "auto"]
        if op == "knn_attention" and rivals:
            worst = max(worst, timed["auto"] / min(rivals))
        if case == _ANCHOR and mode == "forward" and "gather" in timed:
            speed = timed["gather"] / timed["auto"]
            memory = rows["auto"]["peak_mib"] / rows["gather"]["peak_mib"]
            bars.append(_bar(f"auto over gather, {case}, forward", speed, "at least 15", speed >= 15))
            bars.append(_bar(f"memory of auto over gather's, {case}", memory, "at most 0.05", memory <= 0.05))
        if op == "fuse_phase":
            speed = timed["angles"] / timed["auto"]
            bars.append(_bar(f"fuse_phase over angles, {case}", speed, "at least 2", speed >= 2))
    if worst:
        text = "slowest auto over the best alternative, all attention cases"
        bars.insert(0, _bar(text, worst, f"at most {_SLACK}", worst <= _SLACK))
    return bars


def _bar(name: str, value: float, limit: str, held: bool) -> dict[str, Any]:
    return {"name": name, "value": value, "limit": limit, "held": held}
