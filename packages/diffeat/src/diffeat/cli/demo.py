# SPDX-License-Identifier: Apache-2.0
"""``diffeat demo``: what activations say, offline, in a minute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from diffeat.cli.options import Debug, Device, DtypeOption, Json, load_extractor
from diffeat.cli.output import progress, say, show, user_errors


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path("diffeat-demo"),
    model: Annotated[
        str, typer.Option(help="Folder of a pipeline with a U-Net of three levels.")
    ] = "tiny-sdxl",
    device: Device = "auto",
    dtype: DtypeOption = "auto",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """List, take, rank and draw activations of the small model inside this package.

    Runs offline on drawn scenes of 128 pixels. Writes pca.png (picture, what earlier
    work takes, what is chosen here), similarity.png, matches.png (green is right),
    page.html to click in, and ranking.json.

    PCK is the share of points of one view found in another, on pairs that nothing
    was chosen on.

    [bold]Examples[/bold]

      diffeat demo

      diffeat demo -o pictures/ --json

    Exit code: 0 done, 2 nothing could be done.
    """
    with user_errors(debug):
        from diffeat.demo import run_demo

        extractor = load_extractor(model, device=device, dtype=dtype)
        with progress("activations") as bar:
            figures, ranking = run_demo(extractor, out, name=model, progress=bar)
    if json_output:
        typer.echo(json.dumps(figures.to_dict()))
        return
    show(ranking.table())
    typer.echo(
        f"The model has {figures.num_activations} activations; {figures.ranked} were ranked.\n"
        f"Classes of pixels, mIoU: {figures.miou:.3f} by the best of them, "
        f"{figures.miou_baseline:.3f} by the outputs of the levels, which earlier work takes.\n"
        f"{figures.points} points in another view, PCK at {figures.threshold:g} of the side: "
        f"{figures.pck:.3f} by what is chosen here, {figures.pck_baseline:.3f} by the outputs of the levels, "
        f"{figures.pck_pixels:.3f} by raw pixels.\n"
        f"Chosen: {', '.join(figures.chosen)}."
    )
    say(f"Look at {out / 'pca.png'} and {out / 'matches.png'}, and open {out / 'page.html'} in a browser")
