# SPDX-License-Identifier: Apache-2.0
"""From figures to the card, and from the card to the tables of the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from statistics import mean, stdev
from typing import TypedDict

from recipes.segmentation.measure import Figures, Job
from recipes.segmentation.scenes import Kind, View
from recipes.segmentation.tables import Table


class Cell(TypedDict):
    """One row's figures for one kind of classes, in per cent.

    Attributes:
        miou: Mean over the seeds.
        spread: Standard deviation over the seeds, of a sample.
        over_first: Mean gain over the table's first row on the same scenes.
        over_first_spread: Its standard deviation over the seeds.
        found: Mean share of the things' pixels that got their class.
        ground: Mean intersection over union of the ground.
        seeds: MIoU of each seed.
    """

    miou: float
    spread: float
    over_first: float
    over_first_spread: float
    found: float
    ground: float
    seeds: list[float]


# by view, kind and name of the row
Cells = dict[str, dict[str, dict[str, Cell]]]


def jobs_of(tables: Mapping[str, Table], seeds: Sequence[int]) -> list[Job]:
    """Return everything that must be measured for some tables."""
    return [
        Job(row, kind, view, seed)
        for table in tables.values()
        for view, kind, row, seed in product(table.views, table.kinds, table.rows.values(), seeds)
    ]


def summarise(table: Table, figures: Mapping[Job, Figures], seeds: Sequence[int]) -> Cells:
    """Return the cells of a table."""
    return {
        view: {kind: _column(table, figures, seeds, view, kind) for kind in table.kinds}
        for view in table.views
    }


def _column(
    table: Table, figures: Mapping[Job, Figures], seeds: Sequence[int], view: View, kind: Kind
) -> dict[str, Cell]:
    rows = {name: [figures[Job(row, kind, view, seed)] for seed in seeds] for name, row in table.rows.items()}
    first = [each["miou"] for each in next(iter(rows.values()))]
    return {name: _cell(each, first) for name, each in rows.items()}


def _cell(figures: Sequence[Figures], first: Sequence[float]) -> Cell:
    miou = [each["miou"] for each in figures]
    gains = [value - other for value, other in zip(miou, first, strict=True)]
    return Cell(
        miou=round(mean(miou), 2),
        spread=round(_spread(miou), 2),
        over_first=round(mean(gains), 2),
        over_first_spread=round(_spread(gains), 2),
        found=round(mean(each["found"] for each in figures), 2),
        ground=round(mean(each["ground"] for each in figures), 2),
        seeds=[round(value, 2) for value in miou],
    )


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


class Entry(TypedDict):
    """What the card says of a table.

    Attributes:
        title: Title of the table.
        source: Source of the numbers from elsewhere; empty if there are none.
        elsewhere: Those numbers, mIoU in per cent, by row.
        cells: What was measured.
    """

    title: str
    source: str
    elsewhere: Mapping[str, str]
    cells: Cells


def entry(table: Table, figures: Mapping[Job, Figures], seeds: Sequence[int]) -> Entry:
    """Return what the card says of a table."""
    return Entry(
        title=table.title, source=table.source, elsewhere=table.beside, cells=summarise(table, figures, seeds)
    )


def markdown(entry: Entry, view: str) -> str:
    """Return a table of the documentation.

    Args:
        entry: Entry of the card.
        view: View of the scenes.
    """
    columns = entry["cells"][view]
    heads = ["row", *(["elsewhere"] if entry["source"] else [])]
    for kind in columns:
        heads += [kind, "gain"]
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    for number, name in enumerate(next(iter(columns.values()))):
        cells = [name, *([entry["elsewhere"].get(name, "")] if entry["source"] else [])]
        for cell in (column[name] for column in columns.values()):
            gain = f"{cell['over_first']:+.1f} ± {cell['over_first_spread']:.1f}" if number else ""
            cells += [f"{cell['miou']:.1f} ± {cell['spread']:.1f}", gain]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
