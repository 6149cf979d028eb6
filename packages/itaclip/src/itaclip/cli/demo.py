# SPDX-License-Identifier: Apache-2.0
"""``itaclip demo``: what the method does, offline, in a minute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from itaclip.cli.options import Debug, Device, DTypeOption, Json, Model
from itaclip.cli.output import quiet_libraries, stdout, steps, user_errors


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path("itaclip-demo"),
    model: Model = "tiny-shapes",
    device: Device = "auto",
    dtype: DTypeOption = "auto",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Segment drawn scenes by colour with plain CLIP, with the paper's recipe, and with the demo's default.

    Runs offline on the model and the scenes inside this package. Writes comparison.png, and for each scene an
    overlay, scene-1.png, and a page to look around in, scene-1.html.

    [bold]Examples[/bold]

      itaclip demo

      itaclip demo -o pictures --json

    Exit code: 0 done, 2 nothing could be done.
    """
    with user_errors(debug):
        from itaclip.demo import run_demo
        from itaclip.model import ITACLIP

        with quiet_libraries():
            segmenter = ITACLIP.from_pretrained(model, preset="vanilla", device=device, dtype=dtype)
        with steps("segmenting") as progress:
            figures = run_demo(segmenter, out, name=model, progress=progress)
    if json_output:
        typer.echo(json.dumps(figures.to_dict()))
        return
    table = Table("", "mIoU (%)", "pixels right (%)", "seconds")
    table.title = f"{figures.scenes} drawn scenes, {figures.classes} colours and the background"
    rows = {
        "plain CLIP": (figures.miou_vanilla, figures.accuracy_vanilla, figures.seconds_vanilla),
        "ITACLIP": (figures.miou_itaclip, figures.accuracy_itaclip, figures.seconds_itaclip),
        f"default of {figures.model}": (figures.miou, figures.accuracy, figures.seconds),
    }
    best = max(miou for miou, _, _ in rows.values())
    for title, (miou, accuracy, seconds) in rows.items():
        style = "bold green" if miou == best else None
        table.add_row(title, f"{miou:.1f}", f"{accuracy:.1f}", f"{seconds:.1f}", style=style)
    stdout.print(table)
    stdout.print(
        f"Look at {out / 'comparison.png'}, and open {out / 'scene-1.html'} in a browser",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
