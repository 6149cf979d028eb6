# SPDX-License-Identifier: Apache-2.0
"""What figures say of a model: means, losses, and whether it reaches what is required."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypedDict

import numpy as np

from recipes.gates import bound
from recipes.restoration.baselines import Figures
from recipes.restoration.conditions import Requirement


class Verdict(TypedDict):
    """What the requirements say of one model.

    Attributes:
        failures: A sentence for each thing that misses its requirement.
        missed_targets: The same for what is only aimed at.
        passed: Whether there is no failure.
    """

    failures: list[str]
    missed_targets: list[str]
    passed: bool


def margins(figures: Figures, model: str, condition: str, over: Sequence[str]) -> dict[str, float]:
    """Return by how many dB the model leads the best of some methods on each photograph."""
    rows = {name: conditions[condition] for name, conditions in figures.items() if condition in conditions}
    return {
        name: row[model]["psnr"] - max(row[key]["psnr"] for key in over if key in row)
        for name, row in rows.items()
    }


def verdict(
    figures: Figures,
    model: str,
    requirements: Sequence[Requirement],
    colour: Collection[str],
    runs: Sequence[Figures] = (),
) -> Verdict:
    """Hold a model against its requirements.

    Args:
        figures: With the model and all that it has to beat; the mean over the seeds if there are several.
        model: Name of the model in the figures.
        requirements: What it has to reach.
        colour: Photographs that a mean gain is taken over; the other rules hold for every photograph.
        runs: Figures of each seed; a mean gain then has to hold at its lower 95 % bound over them.
    """
    found = [(each, text) for each in requirements for text in _failures(figures, model, each, colour, runs)]
    failures = [text for each, text in found if not each.is_target]
    missed = [text for each, text in found if each.is_target]
    return {"failures": failures, "missed_targets": missed, "passed": not failures}


def mean_gain(figures: Figures, model: str, wanted: Requirement, colour: Collection[str]) -> float:
    """Return by how many dB the model leads the best of the methods, mean over the colour photographs."""
    leads = margins(figures, model, wanted.condition, wanted.over)
    return float(np.mean([lead for name, lead in leads.items() if name in colour]))


def _failures(
    figures: Figures, model: str, wanted: Requirement, colour: Collection[str], runs: Sequence[Figures]
) -> list[str]:
    failures: list[str] = []
    where = wanted.condition
    if wanted.over:
        leads = margins(figures, model, where, wanted.over)
        gain = mean_gain(figures, model, wanted, colour)
        reached = bound([mean_gain(run, model, wanted, colour) for run in runs]) if runs else gain
        if wanted.mean_gain is not None and round(reached, 3) < wanted.mean_gain:
            at_bound = f", {reached:+.2f} dB at its 95 % bound" if runs else ""
            failures.append(
                f"{where}: mean gain {gain:+.2f} dB over {' and '.join(wanted.over)}{at_bound}, "
                f"wanted {wanted.mean_gain:+.2f} dB"
            )
        if wanted.worst_loss is not None:
            failures += [
                f"{name}, {where}: {-lead:.2f} dB lost, allowed {wanted.worst_loss} dB"
                for name, lead in leads.items()
                if round(-lead, 3) > wanted.worst_loss
            ]
    if wanted.floor is not None:
        failures += [
            f"{name}, {where}: {row[where][model]['psnr']:.2f} dB left, wanted {wanted.floor} dB"
            for name, row in figures.items()
            if where in row and row[where][model]["psnr"] < wanted.floor
        ]
    return failures


def losses(figures: Figures, model: str) -> list[dict[str, object]]:
    """List where another method does better than the model, and by how much; nothing is omitted."""
    return [
        {"photo": name, "condition": condition, "measure": measure, "to": key, "by": round(value - ours, 4)}
        for name, rows in figures.items()
        for condition, row in rows.items()
        for measure, ours in row[model].items()
        for key, scores in row.items()
        if key != model and (value := scores.get(measure, ours)) > ours
    ]


def means(figures: Figures) -> dict[str, dict[str, dict[str, float]]]:
    """Average over photographs: condition, method, measure; a method that misses a photograph has no mean."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    for condition in dict.fromkeys(name for rows in figures.values() for name in rows):
        rows = [photo[condition] for photo in figures.values() if condition in photo]
        shared = [key for key in rows[0] if all(key in row for row in rows)]
        result[condition] = {
            key: {part: round(float(np.mean([row[key][part] for row in rows])), 4) for part in rows[0][key]}
            for key in shared
        }
    return result
