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
WEIGHTED: tuple[Arm, ...] = ("grl", "confusion")  # the arms in which the discriminator acts on the model
FIRST_WEIGHT = 0.1  # of results that name none
SETTINGS: tuple[Setting, ...] = get_args(Setting)
TITLES: Mapping[Setting, str] = {"full": "all data", "low": "a tenth of tracking and editing"}
TASK_MEASURES: Mapping[str, str] = {
    "referring_segmentation": "seg_ciou",
    "tracking": "tracking_miou",
    "editing": "edit_iou",
    "caption": "caption_exact",
}
"""Tasks that are left out in turn, and what each is judged by."""
MARKERS = "osD^"  # of the weights of an arm
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
        weight: Largest weight of its loss; 0 where it does not act on the model.
        seeds: How many.
        mean: Of each measure.
        deviation: Sample standard deviation; 0 of one seed.
        gain: Mean difference to ``off`` of the same seed.
        gain_deviation: Of that difference.
    """

    setting: str
    arm: str
    weight: float
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
    by_key = {
        (each["setting"], each["arm"], _weight(each), each["seed"]): each["figures"] for each in results
    }
    groups = sorted(
        {key[:3] for key in by_key}, key=lambda key: (SETTINGS.index(key[0]), ARMS.index(key[1]), key[2])
    )
    rows: list[Row] = []
    for setting, arm, weight in groups:
        own = {
            key[3]: figures for key, figures in sorted(by_key.items()) if key[:3] == (setting, arm, weight)
        }
        off = {key[3]: figures for key, figures in by_key.items() if key[:2] == (setting, "off")}
        gains = {
            name: [figures[name] - off[seed][name] for seed, figures in own.items() if seed in off]
            for name in MEASURES
        }
        values = {name: [figures[name] for figures in own.values()] for name in MEASURES}
        rows.append(
            Row(
                setting=setting,
                arm=arm,
                weight=weight,
                seeds=len(own),
                mean={name: fmean(each) for name, each in values.items()},
                deviation={name: _deviation(each) for name, each in values.items()},
                gain={name: fmean(each) for name, each in gains.items() if each},
                gain_deviation={name: _deviation(each) for name, each in gains.items() if each},
            )
        )
    return rows


def _weight(result: Mapping[str, Any]) -> float:
    return result.get("weight", FIRST_WEIGHT) if result["arm"] in WEIGHTED else 0.0


def _deviation(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def markdown(rows: Sequence[Row]) -> str:
    """Return the table: per cent, mean and standard deviation, in brackets the difference to ``off``."""
    head = f"| data | arm | weight | seeds | {' | '.join(MEASURES.values())} |"
    lines = [head, "|---" * (4 + len(MEASURES)) + "|"]
    for row in rows:
        cells = []
        for name in MEASURES:
            cell = f"{100 * row.mean[name]:.1f} ± {100 * row.deviation[name]:.1f}"
            if row.arm != "off" and name in row.gain:
                cell += f" ({100 * row.gain[name]:+.1f} ± {100 * row.gain_deviation[name]:.1f})"
            cells.append(cell)
        weight = f"{row.weight:g}" if row.weight else ""
        lines.append(f"| {row.setting} | {row.arm} | {weight} | {row.seeds} | {' | '.join(cells)} |")
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
    for axes, setting in zip(panels, settings, strict=False):
        shown = [row for row in rows if row.setting == setting and row.arm != "off"]
        weights = sorted({row.weight for row in shown if row.weight})
        for place, row in enumerate(shown):
            axes.errorbar(
                np.arange(len(MEASURES)) + 0.7 * (place - (len(shown) - 1) / 2) / max(3, len(shown)),
                [100 * row.gain.get(name, 0.0) for name in MEASURES],
                yerr=[100 * row.gain_deviation.get(name, 0.0) for name in MEASURES],
                fmt=MARKERS[weights.index(row.weight) % len(MARKERS)] if row.weight else "x",
                markersize=5,
                capsize=3,
                color=COLOURS[row.arm],
                label=f"{row.arm} {row.weight:g}" if row.weight else row.arm,
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
        if shown:
            axes.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.savefig(path, metadata={"Software": None})
