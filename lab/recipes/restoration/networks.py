# SPDX-License-Identifier: Apache-2.0
"""The networks that a recipe trains: SemanIR, the same with other lists of keys, and a plain one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from common_kernels import KNNDictionary
from safetensors.torch import load_file
from semanir import SemanIR
from semanir.modules.blocks import Stage
from torch import Tensor, nn

from recipes.restoration.conv_unet import ConvUNet
from recipes.restoration.tasks import Task

# semanir-all attends to every key of a window, semanir-random to as many as SemanIR, drawn at random
NetworkName = Literal["semanir", "semanir-all", "semanir-random", "conv"]
WEIGHTS, NAME = "network.safetensors", "network.txt"


def build(network: NetworkName, task: Task) -> nn.Module:
    """Return the untrained network."""
    if network == "conv":
        return ConvUNet().to(memory_format=torch.channels_last)
    config = task.config(**({"k": task.config().window_size ** 2} if network == "semanir-all" else {}))
    model = SemanIR(config)
    if network == "semanir-random":
        for stage in model.stages:
            assert isinstance(stage, Stage), "nothing else is in the list"
            _list_at_random(stage)
    return model.to(memory_format=torch.channels_last)


def _list_at_random(stage: Stage) -> None:
    """Let a stage choose its keys by features that are drawn afresh, in place of its own."""
    choose = stage.build_dictionary

    def build_dictionary(x: Tensor, shift: int, k: int) -> KNNDictionary:
        return choose(torch.randn_like(x), shift, k)

    stage.build_dictionary = build_dictionary


def load(model: nn.Module, file: Path) -> None:
    """Fill a network with stored weights; what the file lacks keeps its first values.

    Raises:
        ValueError: If the file holds weights that the network has no place for.
    """
    _, unexpected = model.load_state_dict(load_file(file), strict=False)
    if unexpected:
        raise ValueError(f"{file} is of another network: it holds {', '.join(unexpected[:3])}")


def load_run(folder: Path, task: Task) -> nn.Module:
    """Return the trained network of a run, ready for use."""
    file = folder / NAME
    name: NetworkName = file.read_text("utf-8").strip() if file.exists() else "semanir"  # pyright: ignore[reportAssignmentType] - written by train
    model = build(name, task)
    load(model, folder / WEIGHTS)
    return model.eval()
