# SPDX-License-Identifier: Apache-2.0
"""What a run was started with: a checkpoint is only resumed by the run that wrote it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from common_kernels.runtime.fingerprint import digest_file
from torch import nn

from vitron.data.files import data_file
from vitron.training.stages import Stage

__all__ = ["RUN_KEY", "check_checkpoint", "describe_run"]

RUN_KEY = "vitron_run"  # in a checkpoint
_SAMPLES = 16  # weights of a tensor that are compared: training changes all of them


def describe_run(model: nn.Module, stage: Stage, data: Path, seed: int) -> dict[str, Any]:
    """Return what the weights of a run depend on, as plain values.

    Args:
        model: Model before its first step, without adapters of this run.
        stage: Stage.
        data: Folder of the data set, or its file.
        seed: Random seed.
    """
    return {
        "stage": stage.model_dump(mode="json"),
        "seed": seed,
        "data set": digest_file(data_file(data)),
        "model": _digest_weights(model),
    }


def check_checkpoint(path: Path, run: Mapping[str, Any]) -> None:
    """Refuse to resume from the checkpoint of another run.

    Args:
        path: Checkpoint.
        run: What :func:`describe_run` returned, and the number of ``processes``.

    Raises:
        ValueError: If stage, seed, data, model or number of processes differ; the message names what does.
    """
    # an earlier version wrote less, or nothing
    found = torch.load(path, map_location="cpu", mmap=True, weights_only=True).get(RUN_KEY, {})
    changes = _differences({key: run[key] for key in run if key in found}, found)
    if changes:
        raise ValueError(
            f"{path} is of another run ({', '.join(changes[:3])}): give another output folder, or delete it "
            "to train anew"
        )


def _differences(mine: Any, theirs: Any, name: str = "") -> list[str]:
    """Return the names of the values that differ, with both where they are short."""
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        one, two = cast("Mapping[str, Any]", mine), cast("Mapping[str, Any]", theirs)
        keys = dict.fromkeys([*one, *two])
        return [each for key in keys for each in _differences(one.get(key), two.get(key), f"{name} {key}")]
    if mine == theirs:
        return []
    is_short = all(isinstance(each, int | float) or name == " stage name" for each in (mine, theirs))
    return [f"{name.strip()} {theirs} instead of {mine}" if is_short else f"{name.strip()} differs"]


def _digest_weights(model: nn.Module) -> str:
    found = hashlib.blake2b(digest_size=16)
    for name, weight in model.state_dict().items():
        flat = weight.detach().flatten()
        some = flat[:: max(1, len(flat) // _SAMPLES)][:_SAMPLES]
        found.update(f"{name}{tuple(weight.shape)}{some.tolist()}".encode())
    return found.hexdigest()
