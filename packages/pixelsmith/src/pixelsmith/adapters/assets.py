# SPDX-License-Identifier: Apache-2.0
"""Models inside this package."""

from __future__ import annotations

from pathlib import Path

from common_kernels.runtime.hub import ShippedModels

INDEX = "model_index.json"
SHIPPED = ShippedModels(Path(__file__).parents[1] / "assets", INDEX)


def shipped_models() -> list[str]:
    """Return the names of the models inside this package."""
    return SHIPPED.names()


def locate_model(source: str | Path) -> str:
    """Return the folder of a shipped model, or the argument as it is: a folder or hub id."""
    return str(SHIPPED.folder(str(source)) if str(source) in SHIPPED.names() else source)


def model_name(source: str | Path) -> str:
    """Undo :func:`locate_model`: return the name of a shipped model, or the argument as it is."""
    return Path(source).name if Path(source).parent == SHIPPED.assets else str(source)
