# SPDX-License-Identifier: Apache-2.0
"""``python -m shapeworld``: look at the world, and measure how fast it is drawn."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, Literal

from common_kernels.runtime.cli import OutputPath, Report, create_app, emit, run_app, say
from cyclopts import Parameter
from cyclopts.types import NonNegativeInt, PositiveInt
from cyclopts.validators import Number

from shapeworld.render import render
from shapeworld.scene import SceneConfig, Split, draw_scene
from shapeworld.sheet import STRIPS, sheet

app = create_app("shapeworld", "Look at the drawn world, and measure how fast it is drawn.")


@app.command
def show(
    kind: Literal["scenes", "edits", "videos", "warps", "prompts"] = "scenes",
    /,
    *,
    output: OutputPath | None = None,
    count: PositiveInt = 24,
    columns: PositiveInt = 4,
    side: Annotated[int, Parameter(validator=Number(gte=32, lte=512))] = 128,
    split: Split = "train",
    seed: NonNegativeInt = 0,
    report: Report = Report(),
) -> None:
    """Write a contact sheet to look at: images with their ground truth and sentences.

    **Examples**

        python -m shapeworld show edits --count 12 --split test

    Args:
        kind: Kind of samples.
        output: PNG to write; shapeworld-KIND.png by default.
        count: Number of samples.
        columns: Number of columns.
        side: Side of an image in pixels.
        split: Split of the world.
        seed: Random seed of the world.
    """
    output = output or Path(f"shapeworld-{kind}.png")
    sheet([STRIPS[kind](seed, index, split, side) for index in range(count)], columns).save(output)
    emit({"output": str(output)}) if report.json else say(str(output))


@app.command
def bench(
    *,
    seconds: Annotated[float, Parameter(validator=Number(gte=0.1))] = 5.0,
    side: PositiveInt = 64,
    processes: PositiveInt = os.cpu_count() or 1,
    report: Report = Report(),
) -> None:
    """Print how many scenes of the full world are drawn and rendered with their masks in a second.

    Args:
        seconds: Seconds for which each process draws.
        side: Side of an image in pixels.
        processes: Number of processes.
    """
    with ProcessPoolExecutor(processes) as pool:
        counts = list(pool.map(_draw_for, [(seconds, side, 10**6 * i) for i in range(processes)]))
    rate = round(sum(counts) / seconds)
    if report.json:
        emit({"scenes_per_second": rate, "side": side, "processes": processes})
    else:
        say(f"{rate} scenes a second at {side} px on {processes} processes")


def _draw_for(task: tuple[float, int, int]) -> int:
    seconds, side, start = task
    config, end, count = SceneConfig(), time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        render(draw_scene(0, start + count, config=config), side)
        count += 1
    return count


if __name__ == "__main__":
    raise SystemExit(run_app(app))
