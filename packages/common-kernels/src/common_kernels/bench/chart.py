# SPDX-License-Identifier: Apache-2.0
"""The chart of a report; needs the extra ``bench``."""

from __future__ import annotations

from pathlib import Path

from common_kernels.bench.case import Mode
from common_kernels.bench.results import Measurement, Report

_COLOURS = ("#d1495b", "#edae49", "#66a182", "#2e4057", "#8d96a3", "#9d4edd", "#00798c", "#b08968", "#6d597a")
_MARKERS = "osDv^<>pX"


def draw_chart(report: Report, path: Path) -> None:
    """Draw the time of every contender over that of ``auto``, a row per case and mode.

    Args:
        report: What to draw.
        path: PNG to write.

    Raises:
        ImportError: If matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("the chart needs the extra 'bench': pip install 'common-kernels[bench]'") from error

    rows: dict[tuple[str, str, Mode], list[Measurement]] = {}
    for m in report.measurements:
        if m.op == "memory" or m.mode == "backward":
            continue
        if m.ratio is not None and m.kind not in ("auto", "part"):
            rows.setdefault((m.op, m.case, m.mode), []).append(m)
    names = list(dict.fromkeys(m.contender for ms in rows.values() for m in ms))
    figure = Figure(figsize=(9, 1.6 + 0.24 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvspan(1e-9, 1, color="#f3d9d9", zorder=0)  # where auto loses
    axes.axvline(1, color="black", linewidth=1)
    for number, name in enumerate(names):
        points = [
            (m.ratio, y)
            for y, ms in enumerate(rows.values())
            for m in ms
            if m.contender == name and m.ratio is not None
        ]
        axes.scatter(
            [x for x, _ in points],
            [y for _, y in points],
            s=26,
            color=_COLOURS[number % len(_COLOURS)],
            marker=_MARKERS[number % len(_MARKERS)],
            label=name,
            zorder=3,
        )
    if not rows:
        axes.set_axis_off()
    ratios = [m.ratio for ms in rows.values() for m in ms if m.ratio is not None]
    axes.set_xlim(min([0.8, *(0.8 * r for r in ratios)]), max([2.0, *(1.25 * r for r in ratios)]))
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [f"{op}  {case}  {mode}" for op, case, mode in rows], fontsize=7)
    axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    axes.grid(axis="y", linewidth=0.4)
    axes.set_xlabel("time over that of auto (log scale); shaded: auto loses")
    axes.set_title(f"{report.machine.device}, torch {report.machine.torch}", fontsize=9)
    if names:
        axes.legend(
            fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.4, -0.5 / (1 + 0.24 * len(rows)))
        )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def draw_memory(report: Report, path: Path) -> None:
    """Draw the peak memory of forward and backward over the tokens of a window, a panel for each ``k``.

    Nothing is written for a report without such cases.

    Args:
        report: What to draw.
        path: PNG to write.

    Raises:
        ImportError: If matplotlib is missing.
    """
    rows = [m for m in report.measurements if m.op == "memory" and m.mode == "both" and m.peak_bytes]
    if not rows:
        return
    from matplotlib.figure import Figure

    lengths = sorted({m.shape["k"] for m in rows})
    figure = Figure(figsize=(3.2 * len(lengths) + 1.6, 3.6), layout="constrained")
    panels = figure.subplots(1, len(lengths), sharey=True, squeeze=False)[0]
    for axes, k in zip(panels, lengths, strict=True):
        for number, name in enumerate(dict.fromkeys(m.contender for m in rows)):
            points = [(m.shape["N"], (m.peak_bytes or 0) / 2**20) for m in rows]
            mine = [m.contender == name and m.shape["k"] == k for m in rows]
            points = sorted(point for point, is_mine in zip(points, mine, strict=True) if is_mine)
            axes.plot(
                [x for x, _ in points],
                [y for _, y in points],
                color=_COLOURS[number % len(_COLOURS)],
                marker=_MARKERS[number % len(_MARKERS)],
                label=name,
            )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("tokens of a window")
        axes.set_title(f"k = {k}", fontsize=9)
        axes.grid(linewidth=0.4)
    panels[0].set_ylabel("peak of forward and backward, MiB")
    panels[-1].legend(fontsize=7)
    figure.savefig(path, dpi=110)
