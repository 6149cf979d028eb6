# SPDX-License-Identifier: Apache-2.0
"""``diffeat presets``: the selections by name."""

from __future__ import annotations

import json

import typer
from rich.table import Table

from diffeat.cli.options import Json
from diffeat.cli.output import show
from diffeat.presets import PRESETS


def presets(json_output: Json = False) -> None:
    """List the selections of the paper and of its authors' configurations.

    A preset that spans several models is taken part by part, by its names.

    [bold]Examples[/bold]

      diffeat presets

      diffeat presets --json
    """
    if json_output:
        found = {
            name: [
                {"model": part.model, "names": list(part.names), "channels": part.channels}
                for part in preset.parts
            ]
            for name, preset in PRESETS.items()
        }
        typer.echo(json.dumps(found, indent=1))
        return
    table = Table("preset", "model", "channels", "names", "source", show_lines=True)
    for name, preset in PRESETS.items():
        for part in preset.parts:
            table.add_row(name, part.model, str(part.channels), "\n".join(part.names), preset.source)
    show(table)
