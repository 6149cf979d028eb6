# SPDX-License-Identifier: Apache-2.0
"""The figure of the study: a panel a table, a dot a row and kind of classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recipes.segmentation.report import Cell

# distinct by colour, for colour blindness too, and by form
MARKS = {"colour": ("#0072b2", "o"), "colour x material": ("#d55e00", "s"), "shape": ("#009e73", "^")}
ROW_INCHES = 0.23


def draw_figure(panels: Mapping[str, Mapping[str, Mapping[str, Cell]]], file: Path) -> None:
    """Draw dots with the spread over seeds.

    Args:
        panels: Cells by title, kind of classes and row.
        file: PNG to write.
    """
    heights = [len(next(iter(columns.values()))) for columns in panels.values()]
    sides = _balanced(heights)
    inches = max(sum(heights[i] * ROW_INCHES + 0.75 for i in side) for side in sides)
    figure = Figure(figsize=(13, inches + 0.4), layout="constrained")
    parts = figure.subfigures(1, len(sides), squeeze=False)[0]
    titles = list(panels)
    for part, side in zip(parts, sides, strict=True):
        axes = part.subplots(
            len(side), 1, squeeze=False, gridspec_kw={"height_ratios": [heights[i] + 1.5 for i in side]}
        )
        for place, i in zip(axes[:, 0], side, strict=True):
            _panel(place, titles[i], panels[titles[i]])
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(MARKS), frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def _balanced(heights: list[int]) -> list[list[int]]:
    """Deal panels to columns in their order, the first column just past half of the height."""
    sides: list[list[int]] = [[], []]
    total = sum(heights)
    done = 0
    for i, height in enumerate(heights):
        sides[0 if done + height / 2 < total / 2 or not sides[0] else 1].append(i)
        done += height
    return [side for side in sides if side]


def _panel(axes: Axes, title: str, columns: Mapping[str, Mapping[str, Cell]]) -> None:
    names = list(next(iter(columns.values())))
    for kind, (colour, marker) in MARKS.items():
        if kind not in columns:
            continue
        cells = [columns[kind][name] for name in names]
        axes.errorbar(
            [cell["miou"] for cell in cells],
            range(len(names)),
            xerr=[cell["spread"] for cell in cells],
            fmt=marker,
            color=colour,
            markersize=5,
            elinewidth=1.2,
            capsize=2,
            label=kind,
        )
        axes.axvline(cells[0]["miou"], color=colour, linewidth=0.7, alpha=0.4)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_title(title, fontsize=10, loc="left", fontweight="bold")
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", linewidth=0.3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
