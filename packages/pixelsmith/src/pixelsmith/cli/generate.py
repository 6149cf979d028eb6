# SPDX-License-Identifier: Apache-2.0
"""``pixelsmith generate``: words in, a large picture out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pixelsmith.cli import options as o
from pixelsmith.cli.request import (
    LoopChoice,
    ModelChoice,
    RunChoice,
    carry_out,
    check_wishes,
    default_output,
    pick,
    square_or_given,
    via_sizes,
)

if TYPE_CHECKING:
    from pixelsmith.core.model import JobModel
    from pixelsmith.job import JobSpec


def generate(
    prompt: Annotated[str, typer.Argument(help="What the picture shows.")],
    size: Annotated[
        str, typer.Option("--size", "-s", help="WIDTHxHEIGHT, or one number of pixels for both.")
    ],
    base: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Size of the picture to begin with; by the model if not given."),
    ] = None,
    via: o.Via = None,
    model: o.Model = "tiny-sdxl",
    negative_prompt: o.Negative = None,
    steps: o.Steps = None,
    guidance: o.Guidance = None,
    seed: o.Seed = 0,
    out: o.Out = None,
    slider: o.SliderOption = "auto",
    plan: o.Plan = "cover",
    mode: o.Mode = "parallel",
    wrap: o.Wrap = "none",
    conditioning: o.Conditioning = "true",
    settings: o.Settings = None,
    batch_size: o.BatchSize = 1,
    device: o.Device = "auto",
    dtype: o.DTypeOption = "auto",
    canvas: o.CanvasOption = "float32",
    job: o.JobDir = None,
    keep: o.Keep = False,
    overwrite: o.Overwrite = False,
    preview: o.Preview = True,
    dry_run: o.DryRun = False,
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Generate a picture of any size from a prompt.

    The model paints a picture of the size that it was trained at; this one is enlarged, and denoised again
    patch by patch. What is under way lies in a job folder: a run that was stopped, killed or cut off goes on
    with the same command, or with [bold]pixelsmith resume[/bold]. Under [bold]accelerate launch[/bold] the
    patches are dealt to all processes.

    [bold]Examples[/bold]

      pixelsmith generate "a red circle" --size 256

      pixelsmith generate "a harbour at dawn" --size 4096x3072 -m ./sdxl -o harbour.tif

      pixelsmith generate "hills" --size 8192x2048 --wrap horizontal -m ./sdxl --via 4096x1024

      pixelsmith generate "a city" --size 31616 -m ./sdxl -o city.dzi --dry-run

      accelerate launch --num_processes 4 -m pixelsmith generate "a city" --size 16384 -m ./sdxl -o city.tif

    Exit code: 0 done, 1 begun and not finished, 2 nothing was done, 130 stopped by Ctrl-C.
    """
    given = dict(locals())
    choice, loop, run = pick(ModelChoice, given), pick(LoopChoice, given), pick(RunChoice, given)

    def check() -> None:
        check_wishes([size, base, *(via or ())], loop, run)

    def make_spec(loaded: JobModel) -> JobSpec:
        from pixelsmith.job.spec import base_size

        target = square_or_given(size)
        first = base_size(target, loaded) if base is None else square_or_given(base)
        sizes = [*via_sizes(via, square_or_given), target]
        # a picture of native size needs no stage
        return loop.spec(loaded, [] if sizes == [first] else sizes, source_size=first)

    stem = o.file_stem(prompt)
    carry_out(choice, check, make_spec, lambda spec: default_output(Path.cwd(), stem, spec.size), run)
