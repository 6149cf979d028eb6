# SPDX-License-Identifier: Apache-2.0
"""Configuration and weights of a model, by shipped name, folder, file or hub id."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from common_kernels.runtime.hub import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    HubOptions,
    ModelNotFoundError,
    ShippedModels,
    find_model,
    load_weights,
    read_config,
)

from semanir.config import SemanIRConfig

if TYPE_CHECKING:
    from torch import Tensor

SHIPPED = ShippedModels(Path(__file__).parent / "assets")
# a tensor beside the weights: programs that load single files find the configuration there
CONFIG_TENSOR = "semanir_config"
_PICKLES = frozenset({".bin", ".ckpt", ".pkl", ".pt", ".pth"})


def shipped_models() -> list[str]:
    """Return the names of the models inside this package."""
    return SHIPPED.names()


def find_folder(name_or_path: str | Path, **hub: Unpack[HubOptions]) -> Path:
    """Return the folder of a shipped model, a local folder, a download from the hub, or a file of weights.

    Args:
        name_or_path: Shipped name, folder, ``.safetensors`` file, or ``"owner/name"`` on the hub.
        **hub: ``revision``, ``token``, ``cache_dir``, ``local_files_only`` and ``force_download``.

    Raises:
        ModelNotFoundError: If there is none, or it is a pickle; the message lists the shipped names.
    """
    file = Path(name_or_path)
    if file.suffix == ".safetensors" and file.is_file():
        return file
    if file.suffix in _PICKLES and file.is_file():
        raise ModelNotFoundError(
            f"{file} is a pickle, which can run code when it is opened: where you trust it, "
            f"semanir convert {file} -o {file.with_suffix('.safetensors')} takes its tensors out"
        )
    return Path(find_model(name_or_path, shipped=SHIPPED, download=[CONFIG_FILE, WEIGHTS_FILE], **hub))


def load_folder(place: Path) -> tuple[SemanIRConfig, dict[str, Tensor]]:
    """Read the configuration and the weights of a folder or file, weights in their stored dtype on the CPU.

    Raises:
        ModelNotFoundError: If a file is missing or broken, the weights are a pickle, or those of another
            architecture.
    """
    if place.is_file():
        weights = load_weights(place.parent, place.name)
        stored = decode_config(weights.pop(CONFIG_TENSOR, None), place)
    else:
        stored, weights = read_config(place), load_weights(place)
        weights.pop(CONFIG_TENSOR, None)
    try:
        config = SemanIRConfig.from_dict(stored)
    except (ValueError, TypeError) as error:
        source = place if place.is_file() else place / CONFIG_FILE
        raise ModelNotFoundError(f"{source} holds no SemanIR configuration: {error}") from error
    return config, weights


def encode_config(config: SemanIRConfig) -> Tensor:
    """Return a configuration as a tensor, ``(bytes,)``, uint8: its JSON."""
    import torch

    return torch.frombuffer(bytearray(json.dumps(config.to_dict()).encode()), dtype=torch.uint8)


def decode_config(stored: Tensor | None, source: str | Path) -> dict[str, object]:
    """Return what :func:`encode_config` made a tensor of.

    Args:
        stored: The tensor; ``None`` if there is none.
        source: File, for the message.

    Raises:
        ModelNotFoundError: If there is none, or it holds something else.
    """
    if stored is None:
        raise ModelNotFoundError(f"{source} holds no SemanIR configuration: it is of another architecture")
    try:
        values: object = json.loads(bytes(stored.tolist()))
    except ValueError as error:
        raise ModelNotFoundError(f"{source} holds a damaged SemanIR configuration: {error}") from error
    if not isinstance(values, dict):
        raise ModelNotFoundError(f"{source} holds a damaged SemanIR configuration")
    return values


def holds_semanir(file: Path) -> bool:
    """Return whether a ``.safetensors`` file is one of ours, with its configuration inside.

    Raises:
        ModelNotFoundError: If the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            return CONFIG_TENSOR in opened.keys()  # noqa: SIM118 - not a dictionary
    except (SafetensorError, OSError) as error:
        raise ModelNotFoundError(f"{file} is damaged or cut short: {error}") from error
