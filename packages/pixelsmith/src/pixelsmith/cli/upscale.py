# SPDX-License-Identifier: Apache-2.0
"""``pixelsmith upscale``: a picture in, a larger one with new detail out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pixelsmith.cli import options as o
from pixelsmith.cli.output import warn
from pixelsmith.cli.request import (
    LoopChoice,
    ModelChoice,
    RunChoice,
    carry_out,
    check_wishes,
    default_output,
    pick,
    via_sizes,
)

if TYPE_CHECKING:
    from pixelsmith.core.model import JobModel
    from pixelsmith.job import JobSpec


def upscale(
    image: Annotated[Path, typer.Argument(help="The picture: PNG, JPEG, WebP, TIFF, BMP, GIF, PPM or AVIF.")],
    scale: Annotated[
        float | None,
        typer.Option("--scale", "-x", help="Of the sides; the result is rounded to whole latent cells."),
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", "-s", help="WIDTHxHEIGHT, or one number for the longer side.")
    ] = None,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What the picture shows.")] = "",
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
    max_pixels: o.MaxPixels = 100_000_000,
    job: o.JobDir = None,
    keep: o.Keep = False,
    overwrite: o.Overwrite = False,
    preview: o.Preview = True,
    dry_run: o.DryRun = False,
    json_output: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Enlarge a picture, adding the detail that the model sees in it.

    A prompt that says what is shown helps. A higher slider keeps more of the picture, a lower one invents
    more. A run that was stopped goes on with the same command, or with [bold]pixelsmith resume[/bold].

    [bold]Examples[/bold]

      pixelsmith upscale photo.jpg --scale 4 -p "a cat on a wall" -m ./sdxl

      pixelsmith upscale photo.jpg --size 8192 --via 4096 --slider 0.4,0.6 -m ./sdxl -o photo.dzi

      pixelsmith upscale tile.png --scale 2 --wrap both -m ./sdxl

      pixelsmith upscale photo.jpg --scale 8 -m ./sdxl --dry-run

    Exit code: 0 done, 1 begun and not finished, 2 nothing was done, 130 stopped by Ctrl-C.
    """
    given = dict(locals())
    choice, loop, run = pick(ModelChoice, given), pick(LoopChoice, given), pick(RunChoice, given)

    def check() -> None:
        from pixelsmith.job import source as files
        from pixelsmith.job.spec import scaled_size

        if (scale is None) == (size is None):
            raise ValueError("give --scale or --size, one of the two")
        check_wishes([size, *(via or ())], loop, run)
        # all of it: damage in the middle of a file does not show in its header
        scaled_size(files.read_source(image, max_pixels).shape[:2], 1 if scale is None else scale, 1)

    def make_spec(loaded: JobModel) -> JobSpec:
        from pixelsmith.job import source as files
        from pixelsmith.job.spec import scaled_size

        held = files.read_size(image, max_pixels)

        def fit(text: str) -> tuple[int, int]:
            return fitted(text, held, loaded.pixels)

        target = fit(size) if size is not None else scaled_size(held, scale or 0, loaded.pixels)
        if model == "tiny-sdxl":
            warn("tiny-sdxl knows drawn shapes only; name a model for photographs with --model")
        return loop.spec(
            loaded, [*via_sizes(via, fit), target], source_size=held, source=image.absolute(),
            source_digest=files.digest(image), max_pixels=max_pixels,
        )  # fmt: skip

    carry_out(choice, check, make_spec, lambda spec: default_output(image.parent, image.stem, spec.size), run)


def fitted(text: str, held: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Return height and width of a size; of one number, which is the longer side, the other follows.

    Args:
        text: What ``--size`` says.
        held: Height and width of the picture.
        multiple: Pixels per latent cell, to which the other side is rounded.
    """
    width, height = o.parse_size(text)
    if height is not None:
        return height, width
    longer, scale = width, width / max(held)
    shorter = max(multiple, round(min(held) * scale / multiple) * multiple)
    return (longer, shorter) if held[0] >= held[1] else (shorter, longer)
