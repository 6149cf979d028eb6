# SPDX-License-Identifier: Apache-2.0
"""Puts the trained weights into a folder that open_clip loads unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from common_kernels.runtime.cli import OutputPath, say
from common_kernels.runtime.files import atomic_path, write_json
from open_clip.model import CLIP
from safetensors import safe_open
from safetensors.torch import save_file

from recipes.cards import folder_size
from recipes.options import Debug
from recipes.tiny_clip.network import MEAN, STD, Size
from recipes.tiny_clip.scenes import SIDE
from recipes.tiny_clip.tokens import save_tokenizer
from recipes.tiny_clip.train import STATE
from recipes.training import CHECKPOINT

ASSETS = Path(__file__).parents[3] / "packages/itaclip/src/itaclip/assets"
WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"


def save(model: CLIP, size: Size, folder: Path, training: dict[str, Any]) -> None:
    """Write configuration, tokenizer and fp16 weights.

    Args:
        model: Its weights are taken.
        size: Size of the model.
        folder: Made if it is not there.
        training: Facts that travel in the header of the weights.
    """
    config = {
        "model_cfg": size.model_config(),
        "preprocess_cfg": {"size": SIDE, "mode": "RGB", "mean": list(MEAN), "std": list(STD)},
    }
    write_json(folder / CONFIG, config)
    save_tokenizer(folder)
    weights = {name: value.detach().cpu().half().contiguous() for name, value in model.state_dict().items()}
    with atomic_path(folder / WEIGHTS) as file:
        save_file(weights, file, metadata={"format": "pt", "training": json.dumps(training)})


def training_facts(folder: Path) -> dict[str, Any]:
    """Return what the header of shipped weights holds on their training."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        return json.loads(file.metadata()["training"])


def ship(run: Path, /, *, output: OutputPath = ASSETS / "tiny-shapes", debug: Debug = Debug()) -> None:
    """Write the model of a run's last checkpoint as open_clip's local folder, fp16.

    Args:
        run: Folder of the training run.
        output: Folder to fill.
    """
    state = torch.load(run / CHECKPOINT, map_location="cpu", weights_only=True)
    plan, steps = state["plan"], state["global_step"]
    size = Size(**plan["size"])
    model = size.build()
    towers = {name: value for name, value in state["state_dict"].items() if name.startswith("model.")}
    model.load_state_dict({name.removeprefix("model."): value for name, value in towers.items()})
    facts: dict[str, Any] = json.loads((run / STATE).read_text())
    facts |= {
        "plan": plan,
        "steps": steps,
        "contrast_from": state["contrast_from"],
        "images_seen": steps * plan["batch_size"],
        "training_minutes": round(state["callbacks"]["Timer"]["time_elapsed"]["train"] / 60, 1),
        "last_row": state["figures"],
    }
    save(model, size, output, facts)
    say(f"{output}: {folder_size(output)} bytes")
