# SPDX-License-Identifier: Apache-2.0
"""The commands together."""

from __future__ import annotations

import re
from inspect import cleandoc
from typing import Annotated

import typer

from pixelsmith.cli.demo import demo
from pixelsmith.cli.generate import generate
from pixelsmith.cli.inspect import inspect
from pixelsmith.cli.resume import resume
from pixelsmith.cli.upscale import upscale

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    help="""Generate and enlarge pictures of any size with diffusion models, within the memory of one patch.

    [bold]Examples[/bold]

      pixelsmith demo

      pixelsmith generate "a harbour at dawn" --size 4096 -m ./sdxl -o harbour.tif

      pixelsmith upscale photo.jpg --scale 4 -p "a cat on a wall" -m ./sdxl

      pixelsmith resume harbour.tif.job""",
)
for command in (generate, upscale, resume, inspect, demo):
    # lines of a paragraph are joined: the width is that of the terminal
    app.command(help=re.sub(r"(?<=\S)\n(?=\S)", " ", cleandoc(command.__doc__ or "")))(command)


def _version(wanted: bool) -> None:
    if wanted:
        from pixelsmith import __version__

        typer.echo(f"pixelsmith {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""
