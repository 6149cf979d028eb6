# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes``: train and evaluate the shipped models, one recipe each."""

from __future__ import annotations

from common_kernels.runtime.cli import create_app, run_app, stderr, warn

from recipes.options import Debug

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
        "pool bound vae latents unet ship samples judge",
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
        "pool train ship examples judge ablate synergy pairs report",
        "The small model of vitron, trained on drawn scenes, and the paper's ablations.",
    ),
}

app = create_app(
    "recipes",
    """Train and evaluate the shipped models, one recipe each.

**Examples**

    python -m recipes restoration pool -o runs/leaves.npy

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


@app.command
def judge(*recipes: str, debug: Debug = Debug()) -> int:
    """Evaluate shipped models on fresh seeds; exit 1 if one misses a requirement.

    Args:
        recipes: Names of recipes; all if none is named.
    """
    if unknown := [recipe for recipe in recipes if recipe not in RECIPES]:
        raise ValueError(f"recipes are {', '.join(RECIPES)}, got {', '.join(unknown)}")
    missed: list[str] = []
    for recipe in recipes or RECIPES:
        stderr.print(f"== {recipe}")
        if app([recipe, "judge"], exit_on_error=False, print_error=False):
            missed.append(recipe)
    if missed:
        warn(f"missed: {', '.join(missed)}")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(run_app(app))
