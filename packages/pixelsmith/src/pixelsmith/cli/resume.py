# SPDX-License-Identifier: Apache-2.0
"""``pixelsmith resume``: go on with a job that was stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from pixelsmith.cli import options as o
from pixelsmith.cli.output import user_errors
from pixelsmith.cli.processes import join_processes
from pixelsmith.cli.request import COMMAND, ModelChoice, RunChoice, do_job


def resume(
    folder: Annotated[Path, typer.Argument(help="The job folder.", metavar="DIR")],
    out: o.Out = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Patches in one pass from now on.", rich_help_panel="Machine")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda[:n] from now on.", rich_help_panel="Machine")
    ] = None,
    keep: o.Keep = False,
    preview: o.Preview = True,
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Go on with a job where it was stopped, killed or cut off.

    What was finished is not computed again, and the result is the same to the byte as that of a run without
    a stop. Another device may round differently.

    [bold]Examples[/bold]

      pixelsmith resume harbour.tif.job

      pixelsmith resume city.dzi.job --batch-size 8 --device cuda:1

    Exit code: 0 done, 1 begun and not finished, 2 nothing was done, 130 stopped by Ctrl-C.
    """
    with user_errors(debug):
        from pixelsmith.job import JobSpec

        notes = read_command(folder)
        choice = ModelChoice(**notes["model"])
        choice = choice if device is None else replace(choice, device=device)
        spec = JobSpec.from_dict(notes["spec"])
        if batch_size is not None:
            spec = replace(spec, config=replace(spec.config, batch_size=batch_size))
        output = Path(notes["output"]) if out is None else out.absolute()
        ranks, own_device = join_processes(choice.device)
        model = replace(choice, device=own_device).load()
    run = RunChoice(keep=keep or notes["keep"], preview=preview, json_output=json_output, debug=debug)
    notes |= {"output": str(output), "spec": spec.to_dict()}
    do_job(model, spec, folder.absolute(), output, run, ranks=ranks, notes=notes)


def read_command(folder: Path) -> dict[str, Any]:
    """Return how a job was asked for.

    Raises:
        ValueError: If the folder is none of a job of a command, or the file is damaged.
    """
    file = folder / COMMAND
    if not file.is_file():
        raise ValueError(f"{folder} is no folder of a job that a command began")
    try:
        notes = json.loads(file.read_text("utf-8"))
        if set(notes) != {"model", "spec", "output", "keep"}:
            raise ValueError("other entries than expected")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    return notes
