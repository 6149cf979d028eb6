# SPDX-License-Identifier: Apache-2.0
"""Configuration and weights of a model, by shipped name, folder or hub id."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from common_kernels.runtime.hub import (
    CONFIG_FILE,
    WEIGHTS_FILE,
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


def shipped_models() -> list[str]:
    """Return the names of the models inside this package."""
    return SHIPPED.names()


def find_folder(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Return the folder of a shipped model, a local folder, or a download from the hub.

    Args:
        name_or_path: Shipped name, folder, or ``"owner/name"`` on the hub.
        revision: Branch, tag or commit on the hub.
        token: Access token of the hub; ``None`` takes the stored one.
        cache_dir: Folder of fetched models.
        local_files_only: Whether to use only what was fetched before.
        force_download: Whether to fetch again.

    Raises:
        ModelNotFoundError: If there is none; the message lists the shipped names.
    """
    found = find_model(
        name_or_path,
        shipped=SHIPPED,
        download=[CONFIG_FILE, WEIGHTS_FILE],
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
    )
    return Path(found)


def load_folder(folder: Path) -> tuple[SemanIRConfig, dict[str, Tensor]]:
    """Read the configuration and the weights of a folder, weights in their stored dtype on the CPU.

    Raises:
        ModelNotFoundError: If a file is missing or broken, or the weights are a pickle.
    """
    stored = read_config(folder)
    try:
        config = SemanIRConfig.from_dict(stored)
    except (ValueError, TypeError) as error:
        raise ModelNotFoundError(f"{folder / CONFIG_FILE} is no SemanIR configuration: {error}") from error
    return config, load_weights(folder)
