# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes``: how the shipped models are made and judged, one room each."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer

ROOMS = {
    "denoise": "The blind denoiser of semanir, trained on dead leaves.",
    "clip": "The CLIP of itaclip, trained on the drawn world.",
    "sdxl": "The diffusion pipeline of pixelsmith and diffeat, trained on the drawn world.",
    "probes": "The frozen probe that judges generated pictures.",
    "segmentation": "What each part of itaclip is worth on the drawn world.",
    "features": "Which activations of the small diffusion model say what, for diffeat.",
    "upscaling": "What each part of pixelsmith is worth on the drawn world.",
    "vitron": "The small model of vitron, trained on the drawn world, and the two experiments of the paper.",
}
MODULES = {
    "denoise": "recipes.tiny_denoise.commands",
    "clip": "recipes.tiny_clip.commands",
    "sdxl": "recipes.tiny_sdxl.commands",
    "probes": "recipes.probes.commands",
    "segmentation": "recipes.segmentation.commands",
    "features": "recipes.features.commands",
    "upscaling": "recipes.upscaling.commands",
    "vitron": "recipes.vitron_tiny.commands",
}
if TYPE_CHECKING:
    Room = str  # a type checker knows no members that are made at run time
else:
    Room = StrEnum("Room", {name: name for name in ROOMS})

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


def commands(room: str) -> typer.Typer:
    """Return the commands of a room; imported only here, as that takes seconds."""
    found: typer.Typer = import_module(MODULES[room]).app
    return found


def door(room: str) -> Callable[[typer.Context], None]:
    """Return the command that hands its arguments on to a room."""

    def enter(ctx: typer.Context) -> None:
        commands(room)(ctx.args, prog_name=f"python -m recipes {room}")

    return enter


for name, about in ROOMS.items():
    handed_on = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(name, help=about, context_settings=handed_on, add_help_option=False)(door(name))


@app.command()
def judge(
    rooms: Annotated[list[Room] | None, typer.Argument(help="Which ones; all if none is named.")] = None,
) -> None:
    """Measure shipped models again; exit 1 if one misses what it must reach."""
    missed: list[str] = []
    for room in rooms or list(ROOMS):
        typer.echo(f"== {room}", err=True)
        if commands(room)(["judge"], prog_name=f"python -m recipes {room}", standalone_mode=False):
            missed.append(room)
    if missed:
        typer.echo(f"missed: {', '.join(missed)}", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
