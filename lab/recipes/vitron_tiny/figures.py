# SPDX-License-Identifier: Apache-2.0
"""Figures of judged turns: of a part, and by world, turn, form and task; and the requirements on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from recipes.gates import Requirement
from recipes.vitron_tiny.baseline import commonest_answers
from recipes.vitron_tiny.evaluation import CALLING, SILENT, Judged
from recipes.vitron_tiny.scoring import cumulative_iou, lead_bound, lower_bound, mean_iou, share, upper_bound

__all__ = ["QUESTIONS", "REQUIREMENTS", "SLICES", "figures_of", "sliced", "table"]

Figures = dict[str, float]
_WORDS = ("caption", "question", "region_caption", "video_question", "span_grounding", "no_call")
_SPURIOUS = ("caption", "question", "no_call")


def figures_of(judged: Sequence[Judged]) -> Figures:
    """Return all figures that the turns at hand allow; of shares, the 95 % bound beside some."""
    found: Figures = {}

    def put(name: str, values: Sequence[bool], *, bound: Literal["", "lower", "upper"] = "") -> None:
        if values:
            found[name] = share(values)
            if bound:
                limit = lower_bound if bound == "lower" else upper_bound
                found[f"{name}_{bound}"] = limit(sum(values), len(values))

    calling = [each for each in judged if each.drawn.example.messages[-1].calls]
    silent = [each for each in judged if not each.drawn.example.messages[-1].calls]
    put("modules", [each.score.modules for each in calling], bound="lower")
    put("instructions", [each.score.instructions for each in calling], bound="lower")
    later = [each.score.instructions for each in calling if each.drawn.turn > 1]
    put("later_right_call", later, bound="lower")
    put("chains", [each.score.instructions for each in _of(judged, "chains")], bound="lower")
    put("spurious_calls", [each.score.spurious for each in _of(silent, *_SPURIOUS)], bound="upper")
    put("spurious_calls_all", [each.score.spurious for each in silent])
    put("malformed", [not each.score.parsed for each in judged], bound="upper")
    for task in _WORDS:
        right = [each.score.text and each.score.modules for each in _of(judged, task)]
        put(task, right, bound="lower" if task == "region_caption" else "")
    found |= _commonest(judged)
    put("grounding_acc50", [_box(each) > 0.5 for each in _of(judged, "grounding")])
    put("executed", [each.executed for each in judged if each.executed is not None])
    put("executed_right", [each.alike for each in judged if each.alike is not None])
    return found | _mask_figures(judged)


def _of(judged: Sequence[Judged], *tasks: str) -> list[Judged]:
    return [each for each in judged if each.drawn.task in tasks]


def _box(judged: Judged) -> float:
    return judged.score.box or 0.0


def _commonest(judged: Sequence[Judged]) -> Figures:
    """Return the share of questions that the commonest answer of their kind gets, and the lead over it."""
    found: Figures = {}
    for task in ("question", "video_question"):
        asked = _of(judged, task)
        if asked:
            examples, answers = [each.drawn.example for each in asked], commonest_answers(task)
            own = [each.score.text and each.score.modules for each in asked]
            commonest = [answers.get(each.group) == each.messages[-1].text for each in examples]
            found[f"{task}_commonest"] = share(commonest)
            found[f"{task}_gain"] = share(own) - share(commonest)
            found[f"{task}_gain_lower"] = lead_bound(own, commonest)
    return found


def _mask_figures(judged: Sequence[Judged]) -> Figures:
    found: Figures = {}
    groups = defaultdict[str, list[Judged]](list)
    for each in judged:
        if each.masks is not None:
            groups[each.drawn.task].append(each)
            if each.drawn.task == "referring_segmentation":
                kind = each.drawn.example.group or each.drawn.form or "named"
                groups[f"referring_{kind}"].append(each)
    for name, turns in sorted(groups.items()):
        pairs = [each.masks for each in turns if each.masks is not None]
        if name in ("tracking", "editing", "video_editing"):
            found[f"{name}_miou"] = mean_iou(pairs)
        elif name != "chains":
            found[f"{name}_ciou"] = cumulative_iou(pairs)
    return found


SLICES: Mapping[str, Callable[[Judged], str]] = {
    "world": lambda each: each.drawn.world,
    "turn": lambda each: str(each.drawn.turn),
    "form": lambda each: each.drawn.form or "independent",
    "task": lambda each: each.drawn.task,
}
"""How turns are grouped, by the name of the table."""


def sliced(judged: Sequence[Judged], name: str) -> dict[str, Figures]:
    """Return figures of each group of turns: number, right calls or right words, and their lower bound.

    Args:
        judged: Turns.
        name: One of :data:`SLICES`.
    """
    groups = defaultdict[str, list[Judged]](list)
    for each in judged:
        groups[SLICES[name](each)].append(each)
    table: dict[str, Figures] = {}
    for key, turns in sorted(groups.items()):
        cell: Figures = {"turns": len(turns)}
        calling = [each.score for each in turns if each.drawn.task in CALLING]
        silent = [each.score for each in turns if each.drawn.task in SILENT]
        if calling:
            right = [score.instructions for score in calling]
            cell["modules"] = share([score.modules for score in calling])
            cell["right_call"] = share(right)
            cell["right_call_lower"] = lower_bound(sum(right), len(right))
        if silent:
            cell["words"] = share([score.text and score.modules for score in silent])
            cell["spurious_calls"] = share([score.spurious for score in silent])
        cell["malformed"] = share([not each.score.parsed for each in turns])
        done = [each.alike for each in turns if each.alike is not None]
        if done:
            cell["executed_right"] = share(done)
        pairs = [each.masks for each in turns if each.masks is not None]
        if pairs:
            cell["mask_ciou"] = cumulative_iou(pairs)
        table[key] = cell
    return table


QUESTIONS = Requirement(figure="test.question_gain", at_least=0.20)
"""Lead of answers over the commonest one of their kind, below which the card says "no skill"."""

REQUIREMENTS: tuple[Requirement, ...] = (
    Requirement(figure="test.modules", at_least=0.99),
    Requirement(figure="test.instructions", at_least=0.95),
    Requirement(figure="test.chains", at_least=0.90),
    Requirement(figure="test.spurious_calls", at_most=0.01),
    Requirement(figure="test.malformed", at_most=0.005),
    Requirement(figure="test.malformed_constrained", at_most=0.0),
    Requirement(figure="test.region_caption", at_least=0.90),
    Requirement(figure="test.referring_attribute_ciou", at_least=0.70),
    Requirement(figure="test.referring_relation_ciou", at_least=0.50),
    Requirement(figure="test.tracking_miou", at_least=0.60),
    QUESTIONS,
    Requirement(figure="conversations.later_right_call", at_least=0.95),
    Requirement(figure="held_out.modules", at_least=0.90),
    Requirement(figure="held_out.instructions", at_least=0.80),
)
"""Requirements of the shipped model, at the 95 % bound over its test seeds."""


def table(figures: Mapping[str, Mapping[str, float]], head: str = "figure") -> str:
    """Return figures as a table in Markdown, one row a figure, one column a part."""
    names = dict.fromkeys(name for part in figures.values() for name in part)
    lines = [f"| {head} | {' | '.join(figures)} |", f"|---|{'---|' * len(figures)}"]
    for name in names:
        cells = [_cell(part[name]) if name in part else "" for part in figures.values()]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
