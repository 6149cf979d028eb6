# SPDX-License-Identifier: Apache-2.0
"""Results as JSON, and the table and the chart that are made from it and from nothing else."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from common_kernels.bench.case import Measurement

SCHEMA = 1
_MODES = {"forward": "forward", "both": "forward and backward"}
Report = dict[str, Any]


def machine() -> dict[str, object]:
    """Return what a figure depends on: device, threads, versions, commit."""
    cuda = torch.cuda.is_available()
    has_triton = importlib.util.find_spec("triton") is not None
    return {
        "device": torch.cuda.get_device_name() if cuda else _cpu_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": importlib.metadata.version("triton") if has_triton else None,
        "common_kernels": importlib.metadata.version("common-kernels"),
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        if names:
            return f"{names[0]}, {len(names)} cores"
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def to_json(results: Sequence[Measurement], *, baselines: Mapping[str, str]) -> Report:
    """Return a report of plain JSON values.

    Args:
        results: What was measured.
        baselines: Contender of each case that speed-ups refer to.
    """
    rows: list[dict[str, Any]] = []
    for r in results:
        row: dict[str, Any] = {
            "case": r.case,
            "op": r.op,
            "shape": dict(r.shape),
            "mode": r.mode,
            "contender": r.contender,
            "status": r.status,
            "error": r.error,
            "peak_mib": _rounded(r.peak_mib),
            "roofline": _rounded(r.roofline),
            "note": r.note,
        }
        if r.times_ms:
            row |= {"rounds": len(r.times_ms), "median_ms": _rounded(r.median_ms)}
            row |= {"p20_ms": _rounded(r.quantile(0.2)), "p80_ms": _rounded(r.quantile(0.8))}
        rows.append(row)
    report: Report = {"schema": SCHEMA, "machine": machine(), "baselines": dict(baselines), "results": rows}
    return report


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def groups(report: Report) -> Iterable[tuple[str, str, str, dict[str, Report]]]:
    """Yield op, mode, case and the rows of that case by contender, in the order of the report."""
    keys = dict.fromkeys((r["op"], r["mode"], r["case"]) for r in report["results"])
    for op, mode, case in sorted(keys, key=lambda key: (key[0], key[1] != "forward")):
        rows = [r for r in report["results"] if (r["op"], r["mode"], r["case"]) == (op, mode, case)]
        yield op, mode, case, {r["contender"]: r for r in rows}


def to_markdown(report: Report, bars: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return the tables of a report.

    Args:
        report: From :func:`to_json`.
        bars: Promises with ``name``, ``value``, ``limit`` and ``held``.
    """
    about = report["machine"]
    lines = [
        f"Measured on {about['device']}, {about['threads']} threads, torch {about['torch']}, "
        f"commit {about['commit']}, {about['date']}. Median of interleaved rounds (20 % to 80 %). "
        "A speed-up is the baseline's time over the contender's, in the same rounds.",
        "",
    ]
    if bars:
        lines += ["| promise | measured | limit | held |", "|---|---|---|---|"]
        lines += [
            f"| {b['name']} | {b['value']:.3g} | {b['limit']} | {'yes' if b['held'] else 'no'} |"
            for b in bars
        ]
        lines.append("")
    section = ("", "")
    for op, mode, case, rows in groups(report):
        if (op, mode) != section:
            section = (op, mode)
            lines += [f"### `{op}`, {_MODES[mode]}", ""]
            lines += [
                "| case | contender | ms | speed-up | peak MiB | roofline | error |",
                "|---|---|---|---|---|---|---|",
            ]
        baseline = rows.get(report["baselines"][case], {}).get("median_ms")
        lines += [_line(case, name, row, baseline) for name, row in rows.items()]
        if (op, mode, case) == _last(report, op, mode):
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _last(report: Report, op: str, mode: str) -> tuple[str, str, str]:
    return [(o, m, c) for o, m, c, _ in groups(report) if (o, m) == (op, mode)][-1]


def _line(case: str, name: str, row: Report, baseline: float | None) -> str:
    shown = f"**{name}**" if name == "auto" else name
    if row["status"] != "ok":
        return f"| {case} | {shown} | {row['status']} {row['note']} | | | | |"
    median = row["median_ms"]
    speed = f"{baseline / median:.1f}" if baseline else ""
    peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.1f}"
    share = "" if row["roofline"] is None else f"{100 * row['roofline']:.0f} %"
    times = f"{median:.3g} ({row['p20_ms']:.3g} to {row['p80_ms']:.3g})"
    return f"| {case} | {shown} | {times} | {speed} | {peak} | {share} | {row['error']:.0e} |"


def draw_chart(report: Report, path: Path) -> None:
    """Draw every contender's speed-up over its baseline, forward, as bars (needs the extra ``bench``)."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the chart needs the extra 'bench': pip install 'common-kernels[bench]'") from error

    forward = [(case, rows) for _, mode, case, rows in groups(report) if mode == "forward"]
    colours = {"auto": "#1f77b4"}
    figure = Figure(figsize=(9, 0.6 + 0.24 * sum(len(rows) + 1 for _, rows in forward)), layout="constrained")
    axes = figure.add_subplot()
    position, ticks, labels = 0.0, [], []
    for case, rows in forward:
        baseline = rows.get(report["baselines"][case], {}).get("median_ms")
        slowest = max((r["median_ms"] for r in rows.values() if r["status"] == "ok"), default=1.0)
        for name, row in rows.items():
            if row["status"] == "ok":
                speed = (baseline or slowest) / row["median_ms"]
                axes.barh(position, speed, color=colours.get(name, "#b8c4d0"))
                axes.text(speed * 1.04, position, f"{speed:.1f}", va="center", fontsize=7)
            ticks.append(position)
            labels.append(f"{case}  {name}" if name != "auto" else f"{case}  AUTO")
            position += 1
        position += 1
    axes.set_yticks(ticks, labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("times as fast as the baseline, forward (log scale)")
    axes.set_title(f"{report['machine']['device']}, torch {report['machine']['torch']}", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def write_report(report: Report, path: Path) -> None:
    """Write the JSON under a temporary name and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
