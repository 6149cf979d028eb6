# SPDX-License-Identifier: Apache-2.0
"""``pixelsmith inspect``: what a job folder holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pixelsmith.cli.options import Debug, Json
from pixelsmith.cli.output import bytes_in_words, say, stdout, user_errors

if TYPE_CHECKING:
    from pixelsmith.job import StageState


def inspect(
    folder: Annotated[Path, typer.Argument(help="The job folder.", metavar="DIR")],
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Tell what a job folder holds and how far the job is. Changes nothing, even of a job under way.

    [bold]Examples[/bold]

      pixelsmith inspect harbour.tif.job

      pixelsmith inspect harbour.tif.job --json
    """
    with user_errors(debug):
        from pixelsmith.job import inspect_job

        state = inspect_job(folder)
    if json_output:
        typer.echo(json.dumps(state.to_dict()))
        return
    table = Table("stage", "size", "state", "encoded", "steps", "patches", "decoded")
    for number, stage in enumerate(state.stages, start=1):
        table.add_row(str(number), *_cells(stage))
    stdout.print(table)
    model = state.description.get("model")
    if isinstance(model, Mapping):
        for name in ("model", "prompt", "num_inference_steps", "guidance_scale"):
            if name in model:
                say(f"{name.replace('_', ' ')}: {model[name]}")
    say(f"on the disk: {bytes_in_words(state.disk_bytes)}")
    if not state.is_complete:
        say(f"go on with: pixelsmith resume {folder}")


def _cells(stage: StageState) -> list[str]:
    return [
        f"{stage.size[1]} x {stage.size[0]}",
        stage.status,
        f"{stage.encoded:.0%}",
        f"{stage.step} of {stage.num_steps}" if stage.num_steps else "",
        f"{stage.calls:,}",
        f"{stage.decoded:.0%}",
    ]
