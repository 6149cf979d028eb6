# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes``: train and evaluate the shipped models, one recipe each."""

from __future__ import annotations

from typing import Literal

from common_kernels.runtime.cli import OutputPath, create_app, run_app, stderr, warn

from recipes.making import steps_of
from recipes.options import Debug, Flag

# name: folder, functions of the commands (in commands.py if no module is named), help
RECIPES = {
    "restoration": (
        "restoration",
        "dead_leaves:pool validation:photographs training:train validation:validate training:ship "
        "judging:judge",
        "The small models of semanir, trained on dead leaves.",
    ),
    "clip": (
        "tiny_clip",
        "scenes:pool train:train ship:ship judge:judge demo_scenes:demo_scenes",
        "The CLIP model of itaclip, trained on drawn scenes.",
    ),
    "sdxl": (
        "tiny_sdxl",
        "pool bound vae decoder latents unet ship samples judge",
        "The diffusion pipeline of pixelsmith and diffeat, trained on drawn scenes.",
    ),
    "probes": ("probes", "training:train ship judge", "The frozen probe that evaluates generated images."),
    "segmentation": ("segmentation", "ablate search gate", "Ablation of itaclip on drawn scenes."),
    "features": (
        "features",
        "study gate scenes heads:heads",
        "Activations of the small diffusion model, ranked for diffeat.",
    ),
    "upscaling": (
        "upscaling",
        "study gate photos:photos",
        "Ablation of pixelsmith on drawn scenes, and photographs enlarged again.",
    ),
    "vitron": (
        "vitron_tiny",
        "pool train ship examples judge plain installed:edits ablate synergy pairs report",
        "The small model of vitron, trained on drawn scenes, and the paper's ablations.",
    ),
    "photo": (
        "photo",
        "judge report compare",
        "The shipped models on photographs and photographic composites.",
    ),
}
WORLDS = {"drawn": tuple(name for name in RECIPES if name != "photo"), "photo": ("photo",)}

app = create_app(
    "recipes",
    """Train and evaluate the shipped models, one recipe each.

**Examples**

    python -m recipes restoration pool -o runs/leaves.npy
    python -m recipes make tiny-clip -o runs/clip
    python -m recipes judge clip segmentation
""",
    distribution="lab",
)
for recipe, (folder, functions, text) in RECIPES.items():
    nested = create_app(recipe, text, distribution="lab")
    for path in functions.split():
        module, _, function = path.rpartition(":")
        name = ("gate", "judge") if function == "gate" else function.replace("_", "-")
        nested.command(f"recipes.{folder}.{module or 'commands'}:{function}", name=name)
    app.command(nested)


app.command("recipes.model_cards:cards", name="cards")


@app.command
def judge(
    *recipes: str,
    world: Literal["drawn", "photo"] = "drawn",
    seed: int | None = None,
    seeds: int | None = None,
    write: Flag = False,
    debug: Debug = Debug(),
) -> int:
    """Evaluate shipped models on fresh seeds; exit 1 if one misses a requirement.

    **Examples**

        python -m recipes judge clip vitron
        python -m recipes judge itaclip --world photo --seed 9200

    Args:
        recipes: Names of recipes, or of packages in the world of photographs; all if none is named.
        world: Where they are evaluated: on drawn scenes, or on photographs, which are fetched.
        seed: First seed of photographs; the recipes of drawn scenes have options of their own.
        seeds: Number of seeds of photographs.
        write: Write the cards of photographs.
    """
    if world == "photo":
        chosen = {"--seed": seed, "--seeds": seeds}
        options = [text for name, value in chosen.items() if value is not None for text in (name, str(value))]
        flags = ["--write"] if write else []
        return int(app(["photo", "judge", *recipes, *options, *flags], exit_on_error=False) or 0)
    if seed is not None or seeds is not None or write:
        raise ValueError("--seed, --seeds and --write need --world photo")
    if unknown := [recipe for recipe in recipes if recipe not in WORLDS[world]]:
        raise ValueError(f"recipes are {', '.join(WORLDS[world])}, got {', '.join(unknown)}")
    missed: list[str] = []
    for recipe in recipes or WORLDS[world]:
        stderr.print(f"== {recipe}")
        if app([recipe, "judge"], exit_on_error=False, print_error=False):
            missed.append(recipe)
    if missed:
        warn(f"missed: {', '.join(missed)}")
    return int(bool(missed))


@app.command
def make(
    model: str, /, *, output: OutputPath, ship: Flag = False, dry_run: Flag = False, debug: Debug = Debug()
) -> int:
    """Make a shipped model from nothing; run again to resume.

    Args:
        model: Name of the model, such as tiny-clip.
        output: Folder of the run.
        ship: Put the trained model into its package.
        dry_run: Print the commands, and run none.
    """
    for step in steps_of(model, output, ship=ship):
        stderr.print(f"== python -m recipes {' '.join(step)}", highlight=False, soft_wrap=True)
        if not dry_run and app(step, exit_on_error=False, print_error=False):
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(run_app(app))
