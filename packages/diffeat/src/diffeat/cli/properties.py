# SPDX-License-Identifier: Apache-2.0
"""``diffeat properties``: what activations look like, measured without labels."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from diffeat.cli.options import (
    Debug,
    Device,
    DtypeOption,
    Images,
    Json,
    Model,
    Names,
    Prompt,
    Recursive,
    Seed,
    Size,
    Timestep,
    find_images,
    load_extractor,
    make_inputs,
)
from diffeat.cli.output import count, progress, say, show, user_errors, warn

_FIGURES = ("noise_sensitivity", "high_frequency", "locality", "granularity")


def properties(
    model: Model,
    images: Images,
    names: Names = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File for the figures; a chart is drawn next to it.")
    ] = Path("properties.json"),
    t: Timestep = 50,
    prompt: Prompt = "",
    size: Size = None,
    seed: Seed = 0,
    recursive: Recursive = False,
    device: Device = "auto",
    dtype: DtypeOption = "auto",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Measure what the paper judges by eye, on a few unlabelled images.

    Noise sensitivity (0 does not change with the noise, 1 shows nothing else),
    high-frequency share, locality (1 shows the pixel grid) and granularity (size of
    what is shown, in shares of the side), drawn over the depth of the model.

    [bold]Examples[/bold]

      diffeat properties path/to/sdxl photos/ -n "up-*" -o up.json

    Exit code: 0 done, 2 nothing could be done.
    """
    with user_errors(debug):
        from diffeat.ranking import measure_properties

        drawn = out.with_suffix(".png")
        if drawn == out:
            raise ValueError(
                f"--out names the file of the figures, such as {out.with_suffix('.json')}, got {out}"
            )
        out.parent.mkdir(parents=True, exist_ok=True)  # not after all has been measured
        found = find_images(images, recursive=recursive)
        inputs = make_inputs(t=t, prompt=prompt, size=size, seed=seed, num_noises=1, batch_size=1)
        extractor = load_extractor(model, device=device, dtype=dtype)
        with progress("activations") as bar:
            report = measure_properties(
                extractor, found, names or "*", recipe=inputs.recipe, prompt=prompt, on_name=bar
            )
        report.to_json(out)
        try:
            report.chart(drawn)
        except ImportError as error:
            warn(str(error))
    if json_output:
        typer.echo(json.dumps([asdict(row) for row in report.rows]))
        return
    table = Table("activation", *(figure.replace("_", " ") for figure in _FIGURES))
    for row in report.rows:
        values = [getattr(row, figure) for figure in _FIGURES]
        table.add_row(row.name, *("" if value is None else f"{value:.3f}" for value in values))
    show(table)
    say(f"{count(len(report.rows), 'activation')} measured on {count(len(found), 'image')}; look at {out}")
