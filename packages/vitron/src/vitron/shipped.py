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
    """Return the folder of a model that comes with the package; a folder, or a name on a hub, as it is.

    Raises:
        ValueError: If it is neither; a hub would be asked for long, and know no more.
    """
    name = str(name_or_path)
    shipped = list_models()
    if name in shipped:
        return str(resources.files("vitron") / _ASSETS / name)
    if "/" not in name and not Path(name).exists():
        raise ValueError(
            f"there is no model called {name!r}: give a folder, OWNER/NAME on a hub, or "
            f"one of {', '.join(shipped)}"
        )
    return name
