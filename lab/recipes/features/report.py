# SPDX-License-Identifier: Apache-2.0
"""The study as tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table of Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or nothing."""
    return "" if value is None else f"{value:.{digits}f}"


def markdown(card: Mapping[str, Any], top: int = 12) -> str:
    """Return all tables of a card, each under a heading.

    Args:
        card: What the study wrote.
        top: Rows of each ranking.
    """
    kinds = list(card["rankings"])
    parts: list[str] = []
    for kind in kinds:
        rows = card["rankings"][kind]
        shown = [(i + 1, row) for i, row in enumerate(rows[:top])]
        shown += [(i + 1, row) for i, row in enumerate(rows) if i >= len(rows) - 3 and i >= top]
        body = [
            (
                place,
                f"`{row['name']}`",
                f"{row['mean']:.3f} ± {row['deviation']:.3f}",
                row["channels"],
                f"{row['flop_share']:.0%}",
            )
            for place, row in shown
        ]
        parts.append(
            f"### Ranking: {kind}\n\n" + table(("", "activation", "score", "channels", "FLOP"), body)
        )
    judged = [
        (title, *(_mean(card["judged"][kind][title]) for kind in kinds))
        for title in next(iter(card["judged"].values()))
    ]
    parts.append("### Sets on fresh images\n\n" + table(("set", *kinds), judged))
    gains = [
        (title, *(_signed(card["gain_over_legacy"][kind][title]) for kind in kinds))
        for title in next(iter(card["judged"].values()))
        if title != "legacy"
    ]
    parts.append("### Gain over legacy\n\n" + table(("set", *kinds), gains))
    parts.append(
        "### Sets\n\n"
        + table(("set", "names"), [(t, ", ".join(f"`{n}`" for n in s)) for t, s in card["sets"].items()])
    )
    parts += [*_properties(card["properties"]), _filters(card["filters"], kinds), _stereo(card["stereo"])]
    return "\n\n".join(parts) + "\n"


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f} ± {stdev(values) if len(values) > 1 else 0:.3f}"


def _signed(gain: Mapping[str, float]) -> str:
    return f"{gain['mean']:+.3f}, at least {gain['lower']:+.3f}"


def _properties(properties: Mapping[str, Any]) -> Iterable[str]:
    keys = ("noise_sensitivity", "high_frequency", "locality", "granularity")
    head = [key.replace("_", " ") for key in keys]
    for title in ("by_region", "by_kind"):
        rows = [
            (group, each["count"], *(number(each.get(key)) for key in keys))
            for group, each in properties[title].items()
        ]
        yield f"### Measures {title.replace('_', ' ')}\n\n" + table(("", "count", *head), rows)
    for title in ("self_q_by_depth", "block_out_by_depth"):
        rows = [(f"`{each['name']}`", *(number(each[key]) for key in keys)) for each in properties[title]]
        yield f"### {title.replace('_', ' ')}\n\n" + table(("activation", *head), rows)
    found = properties["correlation_with_scores"]
    kinds = list(next(iter(found.values())))
    rows = [
        (key.replace("_", " "), *(number(each[kind], 2) for kind in kinds)) for key, each in found.items()
    ]
    yield "### Rank correlation of measures with scores\n\n" + table(("measure", *kinds), rows)


def _filters(rows: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> str:
    body = [
        (
            row["filter"],
            f"{row['kept']} of {row['of']}",
            *(
                f"{number(row[kind]['kept'])} / {number(row[kind]['dropped'])}; "
                f"{number(row[kind]['best_kept'])} / {number(row[kind]['best'])}"
                for kind in kinds
            ),
        )
        for row in rows
    ]
    return "### Filters: mean kept / dropped; best kept / best of all\n\n" + table(
        ("filter", "kept", *kinds), body
    )


def _stereo(stereo: Mapping[str, Any]) -> str:
    thresholds = list(next(iter(stereo["pck"].values())))
    rows = [
        (title, *(number(each[key]) for key in thresholds), number(stereo["median_error"][title], 1))
        for title, each in stereo["pck"].items()
    ]
    head = ("features", *(f"PCK@{key}" for key in thresholds), "median error, px")
    return f"### Stereo pair, {stereo['points']} points\n\n" + table(head, rows)
