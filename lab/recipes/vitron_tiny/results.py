# SPDX-License-Identifier: Apache-2.0
"""Results of the study of synergy: mean and deviation over seeds, as a table and a figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, get_args

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Arm = Literal["off", "placebo", "grl", "confusion"]
Setting = Literal["full", "low"]
ARMS: tuple[Arm, ...] = get_args(Arm)
SETTINGS: tuple[Setting, ...] = get_args(Setting)
TITLES: Mapping[Setting, str] = {"full": "all data", "low": "a tenth of tracking and editing"}
TASK_MEASURES: Mapping[str, str] = {
    "referring_segmentation": "seg_ciou",
    "tracking": "tracking_miou",
    "editing": "edit_iou",
    "caption": "caption_exact",
}
"""Tasks that are left out in turn, and what each is judged by."""
COLOURS: Mapping[str, str] = {"placebo": "#8c8c8c", "grl": "#0f7f8c", "confusion": "#d98c1f"}
MEASURES: Mapping[str, str] = {
    "seg_ciou": "segmentation, cIoU",
    "tracking_miou": "tracking, mIoU",
    "edit_iou": "editing, IoU",
    "caption_exact": "caption exact",
    "module_accuracy": "module accuracy",
    "instruction_exact": "instruction exact",
    "probe_accuracy": "fresh probe on shared signals",
    "probe_accuracy_specific": "fresh probe on specific signals",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One arm of one setting over its seeds.

    Attributes:
        setting: How much data.
        arm: Which discriminator.
        seeds: How many.
        mean: Of each measure.
        deviation: Sample standard deviation; 0 of one seed.
        gain: Mean difference to ``off`` of the same seed.
        gain_deviation: Of that difference.
    """

    setting: str
    arm: str
    seeds: int
    mean: Mapping[str, float]
    deviation: Mapping[str, float]
    gain: Mapping[str, float]
    gain_deviation: Mapping[str, float]


def read_results(folder: Path, kind: str = "results") -> list[dict[str, Any]]:
    """Return the results of a study so far, in the order of names.

    Args:
        folder: Folder of the study.
        kind: ``results`` of the arms, or ``pairs``.
    """
    return [json.loads(path.read_text("utf-8")) for path in sorted((folder / kind).glob("*.json"))]


def matrix(results: Sequence[Mapping[str, Any]]) -> str:
    """Return what each task loses where another is left out: points, mean and standard deviation over seeds.

    Args:
        results: Of trainings without one task, and of those of the same seed without none, ``""``.
    """
    by_key = {(each["without"], each["seed"]): each["figures"] for each in results}
    names = list(TASK_MEASURES.values())
    lines = [f"| without | seeds | {' | '.join(MEASURES[name] for name in names)} |"]
    lines.append("|---" * (2 + len(names)) + "|")
    for task, own in TASK_MEASURES.items():
        seeds = sorted(seed for without, seed in by_key if without == task and ("", seed) in by_key)
        if not seeds:
            continue
        cells: list[str] = []
        for name in names:
            # without its own data a task is not judged
            gaps = [by_key[task, seed][name] - by_key["", seed][name] for seed in seeds]
            cells.append("" if name == own else f"{100 * fmean(gaps):+.1f} ± {100 * _deviation(gaps):.1f}")
        lines.append(f"| {task} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summarise(results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return mean and standard deviation of each arm, and of its difference to ``off``, seed by seed."""
    rows: list[Row] = []
    by_key = {(each["setting"], each["arm"], each["seed"]): each["figures"] for each in results}
    for setting in SETTINGS:
        for arm in ARMS:
            seeds = sorted(seed for one, other, seed in by_key if (one, other) == (setting, arm))
            if not seeds:
                continue
            own = [by_key[setting, arm, seed] for seed in seeds]
            both = [seed for seed in seeds if (setting, "off", seed) in by_key]
            gains = {
                name: [by_key[setting, arm, seed][name] - by_key[setting, "off", seed][name] for seed in both]
                for name in MEASURES
            }
            values = {name: [figures[name] for figures in own] for name in MEASURES}
            rows.append(
                Row(
                    setting=setting,
                    arm=arm,
                    seeds=len(seeds),
                    mean={name: fmean(each) for name, each in values.items()},
                    deviation={name: _deviation(each) for name, each in values.items()},
                    gain={name: fmean(each) for name, each in gains.items() if each},
                    gain_deviation={name: _deviation(each) for name, each in gains.items() if each},
                )
            )
    return rows


def _deviation(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def markdown(rows: Sequence[Row]) -> str:
    """Return the table: per cent, mean and standard deviation, in brackets the difference to ``off``."""
    lines = [f"| data | arm | seeds | {' | '.join(MEASURES.values())} |", "|---" * (3 + len(MEASURES)) + "|"]
    for row in rows:
        cells = []
        for name in MEASURES:
            cell = f"{100 * row.mean[name]:.1f} ± {100 * row.deviation[name]:.1f}"
            if row.arm != "off" and name in row.gain:
                cell += f" ({100 * row.gain[name]:+.1f} ± {100 * row.gain_deviation[name]:.1f})"
            cells.append(cell)
        lines.append(f"| {row.setting} | {row.arm} | {row.seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw_figure(rows: Sequence[Row], path: Path) -> None:
    """Draw the differences to ``off``, with their standard deviations, for each setting.

    Args:
        rows: Of the study.
        path: PNG.
    """
    settings = [setting for setting in SETTINGS if any(row.setting == setting for row in rows)]
    sheet = Figure(figsize=(9.0, 2.6 * max(1, len(settings)) + 0.6), dpi=110, layout="constrained")
    FigureCanvasAgg(sheet)
    panels = sheet.subplots(max(1, len(settings)), 1, squeeze=False)[:, 0]
    arms = [arm for arm in ARMS if arm != "off"]
    for axes, setting in zip(panels, settings, strict=False):
        shown = {row.arm: row for row in rows if row.setting == setting}
        for place, arm in enumerate(arms):
            if arm not in shown:
                continue
            at = np.arange(len(MEASURES)) + 0.22 * (place - (len(arms) - 1) / 2)
            axes.errorbar(
                at,
                [100 * shown[arm].gain.get(name, 0.0) for name in MEASURES],
                yerr=[100 * shown[arm].gain_deviation.get(name, 0.0) for name in MEASURES],
                fmt="o",
                markersize=5,
                capsize=3,
                color=COLOURS[arm],
                label=arm,
            )
        axes.axhline(0, color="#222222", linewidth=0.8)
        axes.set_xticks(
            range(len(MEASURES)),
            [title.replace(", ", "\n").replace(" on ", "\non ") for title in MEASURES.values()],
            fontsize=6.5,
        )
        axes.set_ylabel("points against off")
        axes.set_title(
            {"full": "all data", "low": "a tenth of tracking and editing"}[setting], loc="left", fontsize=9
        )
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", linewidth=0.4)
        if set(shown) - {"off"}:
            axes.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.savefig(path, metadata={"Software": None})
