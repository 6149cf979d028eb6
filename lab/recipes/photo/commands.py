# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes photo``: the shipped models on photographs and photographic composites."""

from __future__ import annotations

import json
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
from shapeworld import Split

from recipes.cards import CARDS, weights_of
from recipes.options import Debug, Flag, Processor
from recipes.photo.tables import Table, markdown

Method = Literal["itaclip", "diffeat", "pixelsmith", "semanir", "vitron"]
METHODS: tuple[Method, ...] = get_args(Method)

FIRST_SEED = 9100
PACKAGES = CARDS.parents[1] / "packages"
PAGE = CARDS.parents[1] / "docs" / "lab" / "photoworld-tables.md"
HEAD = (
    "# On photographs: all figures\n\n"
    "Written by `photo report --write` from the cards; described on [the page of photoworld](photoworld.md)."
)
CAVEAT = (
    "Composites of cut-outs over photographs, or windows of photographs, of the test split unless the model "
    "has seen no photograph at all. Intervals are 95 % percentiles of a bootstrap over the units of each "
    "table. Rules that are told something say so. All seeds draw from the same cut-outs and photographs."
)


def judge(
    *methods: Method,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = FIRST_SEED,
    seeds: PositiveInt = 3,
    count: PositiveInt | None = None,
    write: Flag = False,
    folder: Path = CARDS,
    processor: Processor = Processor(),
) -> int:
    """Evaluate shipped models on fresh composites and windows of photographs, beside baselines.

    Where the Debian archive is not reached and the pictures are not there yet, it says so and ends.

    Args:
        methods: Packages whose models are evaluated; all if none is named.
        seed: First seed of the images; the next ones are ten apart.
        seeds: Number of seeds.
        count: Number of images of each kind and seed; by default what takes about five minutes of one core.
        write: Write the cards.
        folder: Folder of the cards.
    """
    torch.set_num_threads(processor.threads)
    try:
        fetch()
    except ArchiveUnreachableError as error:
        warn(f"skipped: {error}")
        return 0
    chosen = {} if count is None else {"count": count}
    options = f"--seed {seed} --seeds {seeds}" + ("" if count is None else f" --count {count}")
    drawn = [seed + 10 * number for number in range(seeds)]
    for method in methods or METHODS:
        stderr.print(f"== {method}")
        start = time.perf_counter()
        tables: list[Table] = import_module(f"recipes.photo.{method}").judge(drawn, **chosen)
        found = [table.summary() for table in tables]
        for summary in found:
            say(f"{markdown(summary)}\n")
        minutes = round((time.perf_counter() - start) / 60, 1)
        emit({"method": method, "seeds": drawn, "minutes": minutes, "losses": losses(found)})
        if write:
            report: dict[str, Any] = {
                "name": f"photo-{method}",
                "command": f"nox -s lab -- photo judge {method} {options} --write",
                "seeds": drawn,
                "minutes": minutes,
                "weights": weights(method),
                "caveat": CAVEAT,
                "losses": losses(found),
                "tables": found,
            }
            write_json(folder / f"photo-{method}.json", report)
    return 0


def weights(method: Method) -> dict[str, str]:
    """Return the SHA-256 of each file of weights that a package ships."""
    return weights_of(PACKAGES / method / "src" / method / "assets")["sha256"]


def compare(
    method: Literal["itaclip", "vitron"],
    /,
    *models: Path,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 9700,
    seeds: PositiveInt = 3,
    count: PositiveInt = 20,
    split: Split = "val",
    processor: Processor = Processor(),
) -> None:
    """Evaluate several models of a package on the same composites; the tables of each.

    Args:
        method: Package of the models.
        models: Folders of models.
        seed: First seed of the composites; the next ones are ten apart.
        seeds: Number of seeds.
        count: Number of composites, of vitron turns of each kind, for each seed.
        split: Split of the cut-outs and photographs; models are chosen on val, and judged on test.
    """
    torch.set_num_threads(processor.threads)
    drawn = [seed + 10 * number for number in range(seeds)]
    for model in models:
        for table in import_module(f"recipes.photo.{method}").judge(drawn, count, model, split):
            say(f"### {model.name}\n\n{markdown(table.summary())}\n")


def report(*, folder: Path = CARDS, write: Flag = False, debug: Debug = Debug()) -> None:
    """Print the tables of the cards as Markdown.

    Args:
        folder: Folder of the cards.
        write: Write the page of the documentation.
    """
    parts = [HEAD]
    for method in METHODS:
        file = folder / f"photo-{method}.json"
        if file.exists():
            card: dict[str, Any] = json.loads(file.read_text("utf-8"))
            parts += [f"## {method}", f"`{card['command']}`"]
            parts += [markdown(summary) for summary in card["tables"]]
    text = "\n\n".join(parts) + "\n"
    say(text)
    if write:
        PAGE.write_text(text, "utf-8")


def losses(summaries: list[dict[str, Any]]) -> list[str]:
    """Return a sentence for each table in which the best baseline is not surely beaten."""
    return [
        f"{summary['title']}: {summary['gain']['value']:+.3g} over {summary['gain']['over']}, "
        f"at least {summary['gain']['lower']:+.3g}"
        for summary in summaries
        if "gain" in summary and summary["gain"]["lower"] <= 0
    ]
