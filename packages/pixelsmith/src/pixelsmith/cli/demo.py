# SPDX-License-Identifier: Apache-2.0
"""``pixelsmith demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from common_kernels.runtime.cli import OutputPath, Report, emit, progress_bars, say, show

from pixelsmith.cli.job import ModelRequest
from pixelsmith.cli.options import Patches
from pixelsmith.config import SamplingConfig

if TYPE_CHECKING:
    from pixelsmith.core.model import JobModel

# settings under which the figures of tiny-sdxl were measured
_SAMPLING = SamplingConfig(num_inference_steps=20, guidance_scale=4.0)


def demo(
    *,
    output: OutputPath = Path("pixelsmith-demo"),
    machine: Patches = Patches(batch_size=8),
    report: Report = Report(),
    model: str = "tiny-sdxl",
) -> None:
    """Generate small images, and make them four times as large: by Lanczos, at once, and by pixelsmith.

    Runs offline on the model inside this package. Writes comparison.png, and the first large image as
    image.png and as image.dzi with a page that zooms, image.html. Takes about a minute on two cores.

    **Examples**

        pixelsmith demo
        pixelsmith demo -o shapes --seed 7 --json

    Args:
        output: Folder for the images.
        model: Shipped name, folder in the format of diffusers, or hub id.
    """
    from rich.table import Table

    from pixelsmith.cli.report import format_seconds
    from pixelsmith.demo import PROMPTS, run_demo

    def load(prompt: str) -> JobModel:
        return ModelRequest.create(model, prompt, _SAMPLING, machine).load()

    with progress_bars() as bars:
        task = bars.add_task("loading", total=None)

        def on_progress(prompt: str, done: int, total: int) -> None:
            number, every = PROMPTS.index(prompt), total * len(PROMPTS)
            bars.update(task, description=prompt, completed=number * total + done, total=every)

        figures = run_demo(
            load, output, seed=machine.seed, batch_size=machine.batch_size, on_progress=on_progress
        )
    if report.json:
        emit(figures.to_dict())
        return
    table = Table("", f"{figures.size} px")
    table.title = f"{len(PROMPTS)} images, {figures.base_size} px to {figures.size} px, {figures.model}"
    table.add_row("patches through the model", f"{figures.denoiser_calls:,}")
    table.add_row("time", format_seconds(figures.seconds))
    table.add_row("time of sampling at once", format_seconds(figures.seconds_direct))
    table.add_row("worst line, step over that of its neighbours", f"{figures.seam_score:.2f}")
    table.add_row("the same after Lanczos", f"{figures.seam_score_lanczos:.2f}")
    table.add_row("detail (1: as Lanczos)", f"{figures.detail:.2f}")
    show(table)
    say(f"Look at {output / 'comparison.png'}, and open {output / 'image.html'} in a browser")
