# SPDX-License-Identifier: Apache-2.0
"""The paper's three properties and the filters they imply, held against labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, cast

from diffeat import ActivationName, presets
from diffeat.ranking import Properties, Ranking
from scipy.stats import spearmanr

MEASURES = ("noise_sensitivity", "high_frequency", "locality", "granularity")
Names = Sequence[ActivationName]


def filters(names: Names) -> dict[str, list[ActivationName]]:
    """Return what each filter keeps, and what the whole chain keeps.

    Args:
        names: Spatial activations of a U-Net, in execution order.
    """
    clean = presets.asymmetric_noise(names)
    late = [name for name in names if name.stage == "up" and name not in set(clean)]
    rules: dict[str, Callable[[Names], list[ActivationName]]] = {
        "1: first half of the up stage": lambda given: [name for name in given if name in set(clean)],
        "2: outputs and cross-q only": presets.granularity,
        "3: no self-attention": lambda given: presets.locality(given, keep=late),
        "extra: no increments, ffn-inner, self-v": presets.smooth,
    }
    found = {title: rule(names) for title, rule in rules.items()}
    # the second rule names what the others leave; the late up stage keeps its self-attention, as in the paper
    chain = [name for name in presets.locality(presets.smooth(names), keep=late) if name.stage == "up"]
    found["all, as in the paper"] = [
        name for name in chain if name in set(clean) or name.kind in {"self-q", "self-k"}
    ]
    return found


def filter_rows(names: Names, rankings: Mapping[str, Ranking]) -> list[dict[str, Any]]:
    """Say for each filter what it costs: mean score kept and dropped, and the best that is left.

    Args:
        names: Spatial activations, in execution order.
        rankings: Ranking of all activations by task.
    """
    rows: list[dict[str, Any]] = []
    for title, kept in filters(names).items():
        chosen = set(map(str, kept))
        row: dict[str, Any] = {"filter": title, "kept": len(chosen), "of": len(names)}
        for task, ranking in rankings.items():
            scores = {each.names[0]: each.mean for each in ranking.rows}
            inside = [score for name, score in scores.items() if name in chosen]
            outside = [score for name, score in scores.items() if name not in chosen]
            row[task] = {
                "kept": _mean(inside),
                "dropped": _mean(outside),
                "best_kept": max(inside, default=None),
                "best": max(scores.values()),
            }
        rows.append(row)
    return rows


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def region(name: ActivationName, names: Iterable[ActivationName]) -> str:
    """The part of the U-Net that the first property speaks of."""
    if name.stage != "up":
        return name.stage or "ends"
    return "up, first half" if name in set(presets.asymmetric_noise(names)) else "up, second half"


def by_region(rows: Sequence[Properties]) -> dict[str, dict[str, float]]:
    """Mean measures of each part of the U-Net: the first property says where noise shows."""
    names = [ActivationName.parse(row.name) for row in rows]
    parts = [region(name, names) for name in names]
    return _means(rows, parts)


def by_kind(rows: Sequence[Properties]) -> dict[str, dict[str, float]]:
    """Mean measures of each kind of activation: the third property says which are local."""
    return _means(rows, [ActivationName.parse(row.name).kind for row in rows])


def by_depth(rows: Sequence[Properties], kind: str) -> list[dict[str, Any]]:
    """Measures of one kind along the blocks: the second and third properties change with depth."""
    names = {row.name: ActivationName.parse(row.name) for row in rows}
    chosen = [row for row in rows if names[row.name].kind == kind and names[row.name].block is not None]
    return [{"name": row.name, **{key: getattr(row, key) for key in MEASURES}} for row in chosen]


def _means(rows: Sequence[Properties], groups: Sequence[str]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for group in dict.fromkeys(groups):
        own = [row for row, part in zip(rows, groups, strict=True) if part == group]
        found[group] = {"count": len(own)}
        for key in MEASURES:
            values = [getattr(row, key) for row in own if getattr(row, key) is not None]
            if values:
                found[group][key] = fmean(values)
    return found


def correlations(rows: Sequence[Properties], rankings: Mapping[str, Ranking]) -> dict[str, dict[str, float]]:
    """Rank correlation of each label-free measure with the scores of each task."""
    found: dict[str, dict[str, float]] = {}
    for key in MEASURES:
        known = {row.name: getattr(row, key) for row in rows if getattr(row, key) is not None}
        found[key] = {}
        for task, ranking in rankings.items():
            scores = {each.names[0]: each.mean for each in ranking.rows if each.names[0] in known}
            values = [known[name] for name in scores]
            found[key][task] = float(cast("Any", spearmanr)(values, list(scores.values())).statistic)
    return found
