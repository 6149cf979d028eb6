# SPDX-License-Identifier: Apache-2.0
"""The commands that make each model from nothing, one after another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["MODELS", "steps_of"]

_RESTORATION = (
    "restoration pool -o {run}/leaves.npy",
    "restoration train {task} --pool {run}/leaves.npy -o {run}",
    "restoration ship {task} {run}",
)
MODELS: Mapping[str, tuple[str, ...]] = {
    "tiny-clip": (
        "clip pool -o {run}/pool.npy",
        "clip train --pool {run}/pool.npy -o {run}",
        "clip ship {run}",
    ),
    "tiny-sdxl": (
        "sdxl pool -o {run}",
        "sdxl vae -o {run} --steps 2000 --decay-steps 700",
        "sdxl latents -o {run}",
        "sdxl unet -o {run} --steps 2900 --decay-steps 1450 --window-steps 900",
        "restoration pool -o {run}/leaves.npy --count 600 --size 128 --seed 900000",
        "sdxl decoder -o {run} --leaves {run}/leaves.npy",
        "sdxl ship {run}",
    ),
    "probe": ("probes train -o {run}", "probes ship {run}"),
    "vitron-tiny": (
        "vitron pool -o {run} --count 64000",
        "vitron train -o {run} --stage joint --steps 6000",
        "vitron pool -o {run} --stage see --count 110000 --seed 2",
        "vitron train -o {run} --stage see --steps 1000 --batch-size 96 --init {run}/stage-joint/model",
        "vitron pool -o {run} --stage polish --count 120000 --seed 3",
        "vitron train -o {run} --stage polish --steps 4000 --batch-size 48 --init {run}/stage-see/model",
        "vitron ship {run}/stage-polish/model",
    ),
    **{
        f"tiny-{task}": tuple(step.replace("{task}", task) for step in _RESTORATION)
        for task in ("denoise", "jpeg", "demosaic", "sr-x2", "all")
    },
}
"""Commands of each model; the last one puts it into its package."""


def steps_of(model: str, run: Path, *, ship: bool) -> list[list[str]]:
    """Return the commands that make a model, as arguments of ``python -m recipes``.

    Args:
        model: Name of the model.
        run: Folder of the run.
        ship: Whether the trained model replaces that of the package.

    Raises:
        ValueError: If there is no such model.
    """
    if model not in MODELS:
        raise ValueError(f"models are {', '.join(MODELS)}, got {model}")
    steps = MODELS[model] if ship else MODELS[model][:-1]
    return [[part.replace("{run}", str(run)) for part in step.split()] for step in steps]
