# SPDX-License-Identifier: Apache-2.0
"""Looks for the best configuration, one switch after the other, on scenes that the study never reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from rich.progress import Progress

from recipes.segmentation.measure import Bench, Job
from recipes.segmentation.prior import Prior
from recipes.segmentation.rows import Row, vary
from recipes.segmentation.scenes import Kind, View

# values of each switch, the most telling first
CHOICES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "size": [{"resize_short": short} for short in (96, 64, 80, 112, 128)],
    "last block": [
        {"residual": True, "ffn": False},
        {"residual": False, "ffn": False},
        {"residual": True, "ffn": True},
        {"residual": False, "ffn": True},
    ],
    "maps": [
        *(
            {"pairs": pairs, "strategy": "mixed"}
            for pairs in (
                ("qq", "kk"),
                ("qk",),
                ("qq",),
                ("kk",),
                ("vv",),
                ("qq", "vv"),
                ("kk", "vv"),
                ("qq", "kk", "vv"),
            )
        ),
        {"strategy": "value"},
    ],
    "middle": [
        *({"mid_layers": layers} for layers in ((), (4,), (5,), (4, 5), (3, 4, 5), (2, 3, 4, 5), (1, 2)))
    ],
    "gain": [{"gain": gain} for gain in (1.0, 2.0, 4.0)],
    "locality": [{"locality": std} for std in (0.0, 0.7, 1.0, 1.5, 2.0, 3.0)],
    "images": [
        {"branches": branches}
        for branches in (
            ("identity", "gray", "blur", "vflip", "hflip"),
            ("identity", "blur", "vflip", "hflip"),
            ("identity", "vflip", "hflip"),
            ("identity", "hflip"),
            ("identity", "blur"),
            ("identity",),
        )
    ],
}
# what is done to the scores, tried once when the tower is settled: refinement takes most of the time
LAST_CHOICES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "stride": [{"stride": stride} for stride in (32, 16, 8)],
    "pamr": [
        {"pamr_steps": steps, "pamr_dilations": dilations}
        for steps, dilations in (
            (0, (4, 8)),
            (5, (4, 8)),
            (10, (4, 8)),
            (20, (4, 8)),
            (10, (1, 2)),
            (10, (2, 4)),
            (10, (8, 16)),
        )
    ],
    "prior": [{"prior": None}, *({"prior": Prior(weight=weight)} for weight in (0.25, 0.5, 1.0, 2.0, 4.0))],
    "closing": [{"closing": closing} for closing in (False, True)],
    "threshold": [
        {"logit_scale": scale, "prob_threshold": threshold}
        for scale, threshold in ((40.0, 0.0), *((40.0, t / 10) for t in range(2, 8)))
    ],
}

# what does nothing where tokens do not attend
_OF_MAPS = ("middle", "locality")

Report = Callable[[str], None]


def climb(
    bench: Bench,
    start: Row,
    *,
    seeds: Sequence[int],
    kinds: Sequence[Kind],
    views: Sequence[View],
    rounds: int,
    report: Report = lambda _: None,
    progress: Progress | None = None,
) -> tuple[Row, float]:
    """Turn one switch after the other to what measures best, until a round changes nothing; then the last.

    Args:
        bench: Scenes and model.
        start: Row to start from.
        seeds: Random seeds of the scenes.
        kinds: Kinds of classes in the mean.
        views: Views of the scenes in the mean.
        rounds: Through all switches, at most.
        report: Called with a line for every value that was tried.
        progress: Gets the bars.

    Returns:
        The best row and its mean mIoU.
    """

    def turn(row: Row, name: str, switches: Mapping[str, Sequence[Mapping[str, Any]]]) -> Row:
        for switch, values in switches.items():
            if row.config.attention.strategy == "value" and switch in _OF_MAPS:
                continue
            rows = list(dict.fromkeys([row, *(vary(row, **value) for value in values)]))
            scores = _scores(bench, rows, seeds, kinds, views, progress)
            for each, score in scores.items():
                report(f"{name}, {switch}: {score:.2f}  {_difference(row, each)}")
            row = max(scores, key=scores.__getitem__)
        return row

    best = start
    for number in range(rounds):
        before, best = best, turn(best, f"round {number + 1}", CHOICES)
        if best == before:
            break
    best = turn(best, "last", LAST_CHOICES)
    return best, _scores(bench, [best], seeds, kinds, views, None)[best]


def _scores(
    bench: Bench,
    rows: Sequence[Row],
    seeds: Sequence[int],
    kinds: Sequence[Kind],
    views: Sequence[View],
    progress: Progress | None,
) -> dict[Row, float]:
    jobs = {
        row: [Job(row, kind, view, seed) for view in views for seed in seeds for kind in kinds]
        for row in rows
    }
    figures = bench.measure([job for own in jobs.values() for job in own], progress)
    return {row: mean(figures[job]["miou"] for job in own) for row, own in jobs.items()}


def _difference(old: Row, new: Row) -> str:
    before, after = _flat(old), _flat(new)
    changes = [f"{key}={value}" for key, value in after.items() if before[key] != value]
    return ", ".join(changes) or "as before"


def _flat(row: Row) -> dict[str, Any]:
    config = row.config.to_dict()
    attention = config.pop("attention")
    return {**config, **(attention if isinstance(attention, dict) else {}), "prior": row.prior}
