# SPDX-License-Identifier: Apache-2.0
"""``python -m shapeworld``: look at the world, and measure how fast it is drawn."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

import typer

from shapeworld.render import render
from shapeworld.scene import SceneConfig, Split, draw_scene
from shapeworld.sheet import STRIPS, sheet

app = typer.Typer(help=__doc__, no_args_is_help=True)


@app.command()
def show(
    what: Annotated[
        Literal["scenes", "edits", "videos", "warps", "prompts"], typer.Argument(help="Kind of samples.")
    ] = "scenes",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="PNG to write; shapeworld-WHAT.png if not given.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of samples.")] = 24,
    columns: Annotated[int, typer.Option(min=1, help="Number of columns.")] = 4,
    side: Annotated[int, typer.Option(min=32, max=512, help="Side of an image in pixels.")] = 128,
    split: Annotated[Split, typer.Option(help="Split of the world.")] = "train",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the world.")] = 0,
) -> None:
    """Write a contact sheet to look at: images with their ground truth and sentences.

    Example: python -m shapeworld show edits --count 12 --split test
    """
    out = out or Path(f"shapeworld-{what}.png")
    sheet([STRIPS[what](seed, index, split, side) for index in range(count)], columns).save(out)
    typer.echo(out)


@app.command()
def bench(
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds for which each process draws.")] = 5.0,
    side: Annotated[int, typer.Option(min=1, help="Side of an image in pixels.")] = 64,
    processes: Annotated[int, typer.Option(min=1, help="Number of processes.")] = os.cpu_count() or 1,
) -> None:
    """Print how many scenes of the full world are drawn and painted with their masks in a second."""
    with ProcessPoolExecutor(processes) as pool:
        counts = list(pool.map(_draw_for, [(seconds, side, 10**6 * i) for i in range(processes)]))
    typer.echo(f"{sum(counts) / seconds:.0f} scenes a second at {side} px on {processes} processes")


def _draw_for(task: tuple[float, int, int]) -> int:
    seconds, side, start = task
    config, end, count = SceneConfig(), time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        render(draw_scene(0, start + count, config=config), side)
        count += 1
    return count


if __name__ == "__main__":
    app()
