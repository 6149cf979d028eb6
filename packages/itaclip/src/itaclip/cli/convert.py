# SPDX-License-Identifier: Apache-2.0
"""``itaclip convert``: label maps for COCO-Object and COCO-Stuff."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from itaclip.cli.options import Debug, Json, Overwrite
from itaclip.cli.output import stdout, steps, user_errors, warn


def convert(
    target: Annotated[
        Literal["coco-object", "coco-stuff"], typer.Argument(help="Label maps to make.", metavar="TARGET")
    ],
    root: Annotated[Path, typer.Option(help="Folder with annotations/SPLIT/*.png, the maps of COCO-Stuff.")],
    split: Annotated[str, typer.Option(help="val2017 or train2017.")] = "val2017",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Another root to write to.")] = None,
    overwrite: Overwrite = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Make the label maps of COCO-Object or COCO-Stuff from the pixel maps that COCO-Stuff publishes.

    [bold]evaluate[/bold] reads the pixel maps themselves just as well; other programs want
    NAME_labelTrainIds.png (coco-stuff) and NAME_instanceTrainIds.png (coco-object).

    [bold]Examples[/bold]

      itaclip convert coco-stuff --root coco

      itaclip convert coco-object --root coco --split train2017

    Exit code: 0 all done, 1 some maps failed, 2 nothing could be done.
    """
    with user_errors(debug):
        from itaclip.evaluation import convert as conversion

        jobs = conversion.plan_conversion(target, root, split=split, out=out)
        rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        mine = jobs[rank::world_size]
        done = 0
        with steps("label maps", len(mine)) as advance:

            def on_map(job: conversion.Conversion, status: str, wrong: str | None) -> None:
                nonlocal done
                done += 1
                advance(done, len(mine))
                if wrong is not None:
                    warn(wrong, style="red")
                if json_output:
                    entry = {"input": str(job.source), "output": str(job.target), "status": status}
                    typer.echo(json.dumps(entry | ({} if wrong is None else {"error": wrong})))

            counts = conversion.convert(mine, overwrite=overwrite, on_map=on_map)
        if not json_output:
            said = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
            stdout.print(f"{said}, in {jobs[0].target.parent}", soft_wrap=True, markup=False, highlight=False)
    raise typer.Exit(1 if counts["failed"] else 0)
