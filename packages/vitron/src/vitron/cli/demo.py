# SPDX-License-Identifier: Apache-2.0
"""``vitron demo``: talks with the small model, held against the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from vitron.cli.output import Debug, Json, Out, say, stderr, stdout, user_errors

if TYPE_CHECKING:
    from vitron.demo.scripted import Figures


def demo(
    out: Out = "vitron-demo",
    model: Annotated[
        str, typer.Option("--model", "-m", help="A model by name, or its folder.")
    ] = "vitron-tiny",
    scripted: Annotated[
        bool, typer.Option("--scripted", help="Carry out written replies instead; no model takes part.")
    ] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Talk with the small model about drawn pictures and clips: ask, segment, edit, make, track.

    The pictures come with the package and were never shown in training. Scores compare with what was drawn.
    Writes a picture per result and transcript.html.
    """
    with user_errors(debug):
        figures = _scripted(Path(out)) if scripted else _talks(Path(out), model)
    if json_output:
        typer.echo(json.dumps(figures.to_dict()))
        return
    table = Table("task", "score", "measured as", title=f"Replies {figures.replies}")
    for task in figures.tasks:
        table.add_row(task.name, f"{task.score:.2f}", task.measure)
    stdout.print(table)
    say(f"{figures.parse_rate:.0%} of the replies were read without an issue")
    say(f"Open {Path(out) / 'transcript.html'} in a browser")


def _scripted(out: Path) -> Figures:
    from vitron.demo.scripted import run_demo

    return run_demo(out)


def _talks(out: Path, model: str) -> Figures:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from vitron.demo.model import run_model_demo

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True) as progress:
        bar = progress.add_task("talking")
        return run_model_demo(
            out,
            model,
            on_talk=lambda done, total, task: progress.update(
                bar, completed=done, total=total, description=task
            ),
        )
