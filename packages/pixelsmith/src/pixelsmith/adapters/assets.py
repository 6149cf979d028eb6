# SPDX-License-Identifier: Apache-2.0
"""Models that are shipped with this package."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parents[1] / "assets"
INDEX = "model_index.json"


def shipped_models() -> list[str]:
    """Return the names of the models inside this package."""
    return sorted(file.parent.name for file in ASSETS.glob(f"*/{INDEX}"))


def locate_model(source: str | Path) -> str:
    """Return the folder of a shipped model, or the argument as it is: a folder or hub id."""
    return str(ASSETS / source) if str(source) in shipped_models() else str(source)


def model_name(source: str | Path) -> str:
    """Undo :func:`locate_model`: return the name of a shipped model, or the argument as it is."""
    return Path(source).name if Path(source).parent == ASSETS else str(source)
