# SPDX-License-Identifier: Apache-2.0
"""``pixelsmith demo``: what the method does, offline, in a minute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pixelsmith.cli.options import Debug, Device, DTypeOption, Json, Model, Seed
from pixelsmith.cli.output import say, seconds_in_words, stderr, stdout, user_errors
from pixelsmith.cli.request import ModelChoice

_STEPS, _GUIDANCE = 20, 4.0  # what the figures of tiny-sdxl were measured with


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path(
        "pixelsmith-demo"
    ),
    model: Model = "tiny-sdxl",
    seed: Seed = 0,
    device: Device = "auto",
    dtype: DTypeOption = "auto",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Paint small pictures, and make them four times as large: by Lanczos, at once, and by pixelsmith.

    Runs offline on the model inside this package. Writes comparison.png, and the first large picture as
    picture.png and as picture.dzi with a page to zoom in, picture.html. Takes about a minute on two cores.

    [bold]Examples[/bold]

      pixelsmith demo

      pixelsmith demo -o shapes --seed 7 --json
    """
    with user_errors(debug):
        from pixelsmith.core.model import JobModel
        from pixelsmith.demo import PROMPTS, run_demo

        def load(prompt: str) -> JobModel:
            return ModelChoice(
                model=model, prompt=prompt, steps=_STEPS, guidance=_GUIDANCE, device=device, dtype=dtype
            ).load()

        with _bars() as bars:
            task = bars.add_task("loading", total=None)

            def show(prompt: str, done: int, total: int) -> None:
                number = PROMPTS.index(prompt)
                every = total * len(PROMPTS)
                bars.update(task, description=prompt, completed=number * total + done, total=every)

            figures = run_demo(load, out, seed=seed, on_progress=show)
    if json_output:
        typer.echo(json.dumps(figures.to_dict()))
        return
    table = Table("", f"{figures.size} px")
    table.title = f"{len(PROMPTS)} pictures, {figures.base_size} px to {figures.size} px, {figures.model}"
    table.add_row("patches through the model", f"{figures.denoiser_calls:,}")
    table.add_row("time", seconds_in_words(figures.seconds))
    table.add_row("time of sampling at once", seconds_in_words(figures.seconds_direct))
    table.add_row("seam score (1: nothing shows)", f"{figures.seam_score:.2f}")
    table.add_row("detail (1: as Lanczos)", f"{figures.detail:.2f}")
    stdout.print(table)
    say(f"Look at {out / 'comparison.png'}, and open {out / 'picture.html'} in a browser")


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
        TimeRemainingColumn(), console=stderr, disable=not stderr.is_terminal, transient=True,
    )  # fmt: skip
