# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a checkpoint on all parts beside the baseline, with tables for card and pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from recipes.vitron_tiny.baseline import KeywordRouter
from recipes.vitron_tiny.evaluation import CALLING, PARTS, EvaluatedModel, Judged, draw_part, judge
from recipes.vitron_tiny.figures import SLICES, figures_of, sliced, table

__all__ = ["Report", "columns", "evaluate_all", "page"]

CONSTRAINED = 0.5  # of the count, for figures under the grammar
_MAIN = (
    *("modules", "modules_lower", "instructions", "instructions_lower", "chains", "spurious_calls"),
    *("malformed", "executed_right", "question", "question_commonest"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Figures of a checkpoint.

    Attributes:
        figures: Figures by part, of all seeds together.
        runs: Figures by part of each seed.
        baseline: Figures of the keyword router by part.
        slices: Figures by table, part and group of turns.
    """

    figures: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    runs: list[dict[str, dict[str, float]]] = field(default_factory=list[dict[str, dict[str, float]]])
    baseline: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    slices: dict[str, dict[str, dict[str, dict[str, float]]]] = field(
        default_factory=dict[str, dict[str, dict[str, dict[str, float]]]]
    )


def evaluate_all(
    model: EvaluatedModel,
    *,
    seeds: Sequence[int],
    count: int,
    batch_size: int = 32,
    parts: Sequence[str] = tuple(PARTS),
    log: Callable[[str], None] | None = None,
) -> Report:
    """Evaluate a model and the baseline on all parts, and calls of the test part under the grammar.

    Args:
        model: Model.
        seeds: Random seeds of the examples.
        count: Number of examples of a task of share 1 in a part, for each seed.
        batch_size: Number of conversations per batch.
        parts: Names of the parts.
        log: Called with a line from time to time.
    """
    report = Report(slices={name: {} for name in SLICES}, runs=[{} for _ in seeds])
    for name in parts:
        drawn = [list(draw_part(PARTS[name], seed, count)) for seed in seeds]
        execute = not PARTS[name].is_named  # the toy specialists know their five shapes
        judged = [judge(model, turns, batch_size=batch_size, execute=execute, log=log) for turns in drawn]
        for run, own in zip(report.runs, judged, strict=True):
            run[name] = figures_of(own)
        together = [each for own in judged for each in own]
        report.figures[name] = figures_of(together)
        for by in SLICES:
            report.slices[by][name] = sliced(together, by)
        turns = [each for own in drawn for each in own]
        baseline = judge(KeywordRouter(), turns, batch_size=batch_size, execute=execute)
        report.baseline[name] = figures_of(baseline)
        if log is not None:
            log(f"{name}: {_summary(together)}")
    if "test" in parts:
        few = [
            turn
            for seed in seeds
            for turn in draw_part(PARTS["test"], seed, max(1, round(CONSTRAINED * count)), CALLING)
        ]
        held = figures_of(judge(model, few, batch_size=batch_size, constrained=True, execute=False))
        for figure in ("malformed", "instructions"):
            report.figures["test"][f"{figure}_constrained"] = held[figure]
    return report


def _summary(judged: Sequence[Judged]) -> str:
    figures = figures_of(judged)
    return ", ".join(f"{name} {figures[name]:.3f}" for name in _MAIN if name in figures)


def page(report: Report) -> str:
    """Return all tables in Markdown."""
    parts = [
        table(report.figures),
        "Baseline: a router by verbs and regular expressions, on the same turns.",
        table(_only(report.baseline, _MAIN)),
    ]
    for by, found in report.slices.items():
        for part, groups in found.items():
            if len(groups) > 1:
                parts += [f"By {by}, {part.replace('_', ' ')}:", table(columns(groups), by)]
    return "\n\n".join(parts)


def _only(figures: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> dict[str, dict[str, float]]:
    return {part: {name: each[name] for name in names if name in each} for part, each in figures.items()}


def columns(groups: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the transpose: figures by figure name and group."""
    names = dict.fromkeys(name for each in groups.values() for name in each)
    return {
        name.replace("_", " "): {group: each[name] for group, each in groups.items() if name in each}
        for name in names
    }
