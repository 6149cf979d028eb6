# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes``: train and evaluate the shipped models, one recipe each."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer

# name: module of the commands, help
RECIPES = {
    "denoise": ("tiny_denoise", "The blind denoiser of semanir, trained on dead leaves."),
    "clip": ("tiny_clip", "The CLIP model of itaclip, trained on drawn scenes."),
    "sdxl": ("tiny_sdxl", "The diffusion pipeline of pixelsmith and diffeat, trained on drawn scenes."),
    "probes": ("probes", "The frozen probe that evaluates generated images."),
    "segmentation": ("segmentation", "Ablation of itaclip on drawn scenes."),
    "features": ("features", "Activations of the small diffusion model, ranked for diffeat."),
    "upscaling": ("upscaling", "Ablation of pixelsmith on drawn scenes."),
    "vitron": (
        "vitron_tiny",
        "The small model of vitron, trained on drawn scenes, and the paper's ablations.",
    ),
}
if TYPE_CHECKING:
    Recipe = str  # a type checker knows no members that are made at run time
else:
    Recipe = StrEnum("Recipe", {name: name for name in RECIPES})

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


def commands(recipe: str) -> typer.Typer:
    """Return the commands of a recipe; imported only here, as that takes seconds."""
    found: typer.Typer = import_module(f"recipes.{RECIPES[recipe][0]}.commands").app
    return found


def forward(recipe: str) -> Callable[[typer.Context], None]:
    """Return the command that forwards its arguments to a recipe."""

    def run(ctx: typer.Context) -> None:
        commands(recipe)(ctx.args, prog_name=f"python -m recipes {recipe}")

    return run


for name, (_, text) in RECIPES.items():
    forwarded = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(name, help=text, context_settings=forwarded, add_help_option=False)(forward(name))


@app.command()
def judge(
    recipes: Annotated[list[Recipe] | None, typer.Argument(help="Recipes; all if none is named.")] = None,
) -> None:
    """Evaluate shipped models on fresh seeds; exit 1 if one misses a requirement."""
    missed: list[str] = []
    for recipe in recipes or list(RECIPES):
        typer.echo(f"== {recipe}", err=True)
        if commands(recipe)(["judge"], prog_name=f"python -m recipes {recipe}", standalone_mode=False):
            missed.append(recipe)
    if missed:
        typer.echo(f"missed: {', '.join(missed)}", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
