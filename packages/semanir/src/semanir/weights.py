# SPDX-License-Identifier: Apache-2.0
"""Saving and loading: ``config.json`` and ``model.safetensors``, by name, folder or hub id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from semanir.config import SemanIRConfig

ASSETS = Path(__file__).parent / "assets"
CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "card.json"

DType = Literal["auto", "float32", "bfloat16", "float16"]


class ModelNotFoundError(FileNotFoundError):
    """No model has this name, folder or hub id, or its files cannot be used."""


def shipped_models() -> list[str]:
    """Return the names of the models inside this package."""
    return sorted(file.parent.name for file in ASSETS.glob(f"*/{WEIGHTS_FILE}"))


def read_card(name: str) -> dict[str, Any]:
    """Return what is known of a shipped model: task, parameters, figures; empty if it has no card."""
    file = ASSETS / name / CARD_FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Turn ``"auto"`` into the CUDA device if there is one, else the CPU; check any other.

    Raises:
        ValueError: If the device is not known or not present.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be 'auto', 'cpu' or 'cuda[:n]', got {device!r}") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} is not present: {torch.cuda.device_count()} CUDA devices found")
    return found


def resolve_dtype(dtype: DType | torch.dtype = "auto") -> torch.dtype:
    """Turn ``"auto"`` into fp32 and a name into a dtype.

    Raises:
        ValueError: If the dtype is not one that the network runs in.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    names = {
        "auto": torch.float32,
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
    }
    if dtype not in names:
        raise ValueError(f"dtype must be one of {', '.join(names)}, got {dtype!r}")
    return names[dtype]


def find_folder(name_or_path: str | Path) -> Path:
    """Return the folder of a shipped model, a local folder, or a download from the hub.

    Raises:
        ModelNotFoundError: If there is none; the message lists the shipped names.
    """
    name = str(name_or_path)
    if name in shipped_models():
        return ASSETS / name
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder
    problem = f"no model {name!r}: it is neither shipped ({', '.join(shipped_models())}) nor a folder"
    if folder.is_file():
        raise ModelNotFoundError(f"{name!r} is a file; give the folder of {CONFIG_FILE} and {WEIGHTS_FILE}")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelNotFoundError(problem)
    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFoundError(
            f"{problem}, and the hub did not give it ({type(error).__name__})"
        ) from error


def load_folder(folder: Path) -> tuple[SemanIRConfig, dict[str, Tensor]]:
    """Read the configuration and the weights of a folder, weights in their stored dtype on the CPU.

    Raises:
        ModelNotFoundError: If a file is missing or broken, or the weights are a pickle.
    """
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        pickles = [f.name for f in folder.iterdir() if f.suffix in {".bin", ".pt", ".pth", ".ckpt"}]
        advice = (
            f"; {pickles[0]} is a pickle, which can run code when opened: convert it to safetensors"
            if pickles
            else ""
        )
        raise ModelNotFoundError(f"{folder} has no {WEIGHTS_FILE}{advice}")
    try:
        stored = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        config = SemanIRConfig.from_dict(stored)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelNotFoundError(f"{folder / CONFIG_FILE} is no SemanIR configuration: {error}") from error
    try:
        return config, load_file(weights)
    except (SafetensorError, OSError) as error:
        raise ModelNotFoundError(f"{weights} is damaged: {error}") from error
