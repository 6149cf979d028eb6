# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes photo``: the shipped models on photographs and photographic composites."""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
from common_kernels.runtime.cli import emit, say, stderr, warn
from common_kernels.runtime.files import write_json
from cyclopts import Parameter
from cyclopts.types import PositiveInt
from cyclopts.validators import Number
from photoworld import ArchiveUnreachableError, fetch

from recipes.cards import CARDS
from recipes.options import Flag, Processor
from recipes.photo.tables import Table, markdown

Method = Literal["itaclip", "diffeat", "pixelsmith", "semanir", "vitron"]
METHODS: tuple[Method, ...] = get_args(Method)

FIRST_SEED = 9100
CAVEAT = (
    "Composites of cut-outs over photographs, or windows of photographs, of the test split unless the model "
    "has seen no photograph at all. Intervals are 95 % percentiles of a bootstrap over the units of each "
    "table. Rules that are told something say so. All seeds draw from the same cut-outs and photographs."
)


def judge(
    *methods: Method,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = FIRST_SEED,
    seeds: PositiveInt = 3,
    write: Flag = False,
    folder: Path = CARDS,
    processor: Processor = Processor(),
) -> int:
    """Evaluate shipped models on fresh composites and windows of photographs, beside bare rules.

    Where the Debian archive is not reached and the pictures are not there yet, it says so and ends.

    Args:
        methods: Packages whose models are evaluated; all if none is named.
        seed: First seed of the images; the next ones are ten apart.
        seeds: Number of seeds.
        write: Write the cards.
        folder: Folder of the cards.
    """
    torch.set_num_threads(processor.threads)
    try:
        fetch()
    except ArchiveUnreachableError as error:
        warn(f"skipped: {error}")
        return 0
    drawn = [seed + 10 * number for number in range(seeds)]
    for method in methods or METHODS:
        stderr.print(f"== {method}")
        start = time.perf_counter()
        tables: list[Table] = import_module(f"recipes.photo.{method}").judge(drawn)
        found = [table.summary() for table in tables]
        for summary in found:
            say(f"{markdown(summary)}\n")
        minutes = round((time.perf_counter() - start) / 60, 1)
        emit({"method": method, "seeds": drawn, "minutes": minutes, "losses": losses(found)})
        if write:
            report: dict[str, Any] = {
                "name": f"photo-{method}",
                "command": f"nox -s lab -- judge {method} --world photo --seed {seed} --seeds {seeds}",
                "seeds": drawn,
                "minutes": minutes,
                "caveat": CAVEAT,
                "losses": losses(found),
                "tables": found,
            }
            write_json(folder / f"photo-{method}.json", report)
    return 0


def losses(summaries: list[dict[str, Any]]) -> list[str]:
    """Return a sentence for each table in which the best bare rule is not surely beaten."""
    return [
        f"{summary['title']}: {summary['gain']['value']:+.3g} over {summary['gain']['over']}, "
        f"at least {summary['gain']['lower']:+.3g}"
        for summary in summaries
        if "gain" in summary and summary["gain"]["lower"] <= 0
    ]
