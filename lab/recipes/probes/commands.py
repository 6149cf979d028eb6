# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes probes``: train and judge the judge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import typer

from recipes.probes.judging import WEIGHTS, Judge, accuracy
from recipes.probes.training import train

app = typer.Typer(help="The frozen probe that judges generated images.", no_args_is_help=True)
app.command()(train)

CARD = WEIGHTS.with_name("probe.json")


@app.command()
def ship(run: Annotated[Path, typer.Argument(help="Folder of a finished run.")]) -> None:
    """Put the trained probe where the judges look for it."""
    shutil.copyfile(run / "probe.safetensors", WEIGHTS)
    typer.echo(f"{WEIGHTS}: {WEIGHTS.stat().st_size} bytes")


@app.command()
def judge(
    count: Annotated[int, typer.Option(min=1, help="Scenes of each kind.")] = 400,
    seed: Annotated[int, typer.Option(help="Random seed of the scenes.")] = 1000,
    training: Annotated[Path | None, typer.Option(help="JSON with how it was trained, for the card.")] = None,
    write: Annotated[bool, typer.Option(help="Write the card.")] = False,
) -> None:
    """Measure the probe on scenes it never saw."""
    card = json.loads(CARD.read_text("utf-8")) if CARD.exists() else {}
    if training is not None:
        card["training"] = json.loads(training.read_text("utf-8"))
    card["accuracy"] = accuracy(Judge.load(), count=count, seed=seed)
    card["judged_on"] = {"count": count, "seed": seed}
    text = json.dumps(card, indent=2)
    typer.echo(text)
    if write:
        CARD.write_text(text + "\n", "utf-8")
