# SPDX-License-Identifier: Apache-2.0
"""The commands together."""

from __future__ import annotations

from typing import Annotated

import typer

from diffeat.cli.demo import demo
from diffeat.cli.extract import extract
from diffeat.cli.match import match
from diffeat.cli.names import names
from diffeat.cli.pck import pck
from diffeat.cli.presets import presets
from diffeat.cli.properties import properties
from diffeat.cli.rank import rank
from diffeat.cli.segment import segment
from diffeat.cli.view import view

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    help=r"""Features of images from inside a diffusion model.

    Every activation has a name. List them, take them, rank them by your labels.

    [bold]Examples[/bold]

      diffeat demo

      diffeat names path/to/pipeline "up-*-cross-q"

      diffeat extract path/to/pipeline photos/ --preset Ours-XL -o features/

      diffeat rank path/to/pipeline pictures/ masks/ --budget 3840

      diffeat properties path/to/pipeline photos/ -n "up-*"

      diffeat view path/to/pipeline cat.jpg dog.jpg -p Ours-XL --together --as page

      diffeat match path/to/pipeline cat.jpg dog.jpg -p Ours-XL

      diffeat segment path/to/pipeline photos/ --images few/ --masks few-masks/ -p Ours-XL

      diffeat pck path/to/pipeline SPair-71k -p Ours-XL

      diffeat presets""",
)
for command in (demo, names, extract, rank, properties, view, match, segment, pck, presets):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"diffeat {version('diffeat')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""
