# SPDX-License-Identifier: Apache-2.0
"""The commands together, and the small ones themselves."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from itaclip.cli.convert import convert
from itaclip.cli.demo import demo
from itaclip.cli.evaluate import evaluate
from itaclip.cli.export import export
from itaclip.cli.options import Debug, Json, ModelOptions, Settings
from itaclip.cli.output import stdout, user_errors
from itaclip.cli.segment import segment
from itaclip.cli.texts import texts_app
from itaclip.cli.video import video

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    help=r"""Segment images by classes given in words, with CLIP and no training.

    [bold]Examples[/bold]

      itaclip demo

      itaclip segment photo.jpg -c "cat, dog, sky" -o photo.html \
        --model ViT-B-16 --pretrained openai

      itaclip segment photos/ -r -c "person|man|woman, bicycle" --background auto \
        -o out/ --model ViT-B-16 --pretrained openai

      itaclip video clip.mp4 -c "person, grass, sky" -o clip-segmented.mp4 \
        --model ViT-B-16 --pretrained openai

      itaclip models""",
)
for command in (demo, segment, video, evaluate, convert, export):
    app.command()(command)
app.add_typer(texts_app, name="texts")


@app.command()
def models(json_output: Json = False) -> None:
    """List the models inside this package.

    Every other CLIP model of open_clip is loaded by its name or folder:
    --model ViT-B-16 --pretrained openai.

    [bold]Examples[/bold]

      itaclip models

      itaclip models --json
    """
    from itaclip.loading import ASSETS, shipped_models

    cards: dict[str, dict[str, object]] = {}
    for name in shipped_models():
        file = ASSETS / name / "card.json"
        cards[name] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    if json_output:
        typer.echo(json.dumps(cards))
        return
    table = Table("model", "what it does", "parameters")
    for name, card in cards.items():
        parameters = card.get("parameters")
        table.add_row(
            name, str(card.get("task", "")), f"{parameters:,}" if isinstance(parameters, int) else ""
        )
    stdout.print(table)


@app.command()
def presets(
    name: Annotated[str | None, typer.Argument(help="Show the settings of this one, as JSON.")] = None,
    settings: Settings = None,
    debug: Debug = False,
) -> None:
    """List the presets, or show the effective settings of one.

    [bold]Examples[/bold]

      itaclip presets

      itaclip presets voc21 --set stride=56
    """
    from itaclip.config import ITACLIPConfig

    if name is not None:
        with user_errors(debug):
            config = ModelOptions(model="", preset=name, settings=settings or ()).config()
        typer.echo(json.dumps(config.to_dict(), indent=2))
        return
    table = Table("preset", "attention", "mid layers", "windows", "branches", "refined")
    for each in ITACLIPConfig.presets():
        config = ITACLIPConfig.preset(each)
        attention = config.attention
        table.add_row(
            each,
            "values only" if attention.value_only else " + ".join(attention.pairs),
            ", ".join(
                str(layer) if isinstance(layer, int) else f"{layer:.0%}" for layer in attention.mid_layers
            ),
            f"{config.crop} px every {config.stride}",
            str(len(config.branches)),
            f"{config.pamr_steps} steps" if config.pamr_steps else "",
        )
    stdout.print(table)


def _version(wanted: bool) -> None:
    if wanted:
        from itaclip import __version__

        typer.echo(f"itaclip {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""
