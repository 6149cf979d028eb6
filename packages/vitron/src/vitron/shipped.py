# SPDX-License-Identifier: Apache-2.0
"""The models that come with the package, by name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

__all__ = ["list_models", "model_folder"]

_ASSETS = "assets"


def list_models() -> list[str]:
    """Return the names of the models that come with the package."""
    folder = resources.files("vitron") / _ASSETS
    if not folder.is_dir():
        return []
    return sorted(each.name for each in folder.iterdir() if (each / "config.json").is_file())


def model_folder(name_or_path: str | Path) -> str:
    """Return the folder of a model that comes with the package; any other name as it is."""
    if str(name_or_path) in list_models():
        return str(resources.files("vitron") / _ASSETS / str(name_or_path))
    return str(name_or_path)
