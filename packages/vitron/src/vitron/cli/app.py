# SPDX-License-Identifier: Apache-2.0
"""The commands together."""

from __future__ import annotations

from typing import Annotated

import typer

from vitron.cli.chat import chat
from vitron.cli.data import data_app
from vitron.cli.demo import demo
from vitron.cli.evaluate import evaluate
from vitron.cli.fit import fit
from vitron.cli.info import doctor, parse_command, specialists
from vitron.cli.run import run
from vitron.cli.serve import serve, ui

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    help="""Talk to pictures and clips: ask, segment, edit, make, track.

    [bold]Examples[/bold]

      vitron demo

      vitron chat picture.png

      vitron serve

      vitron fit mine/ -o runs/calls --stage 1.2

      vitron run photo.png --reply "<module>B</module><instruction>segment: the red circle</instruction>"

      vitron specialists""",
)
for command in (chat, run, serve, ui, fit, evaluate, specialists, doctor, demo):
    app.command()(command)
app.command("parse")(parse_command)
app.add_typer(data_app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        from vitron import __version__

        typer.echo(f"vitron {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""
