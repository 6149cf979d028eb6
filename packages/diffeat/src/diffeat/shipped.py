# SPDX-License-Identifier: Apache-2.0
"""The models inside this package, by name."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
SHIPPED = ("tiny-sdxl",)


def shipped_models() -> tuple[str, ...]:
    """Names of the models that this installation holds."""
    return tuple(name for name in SHIPPED if _is_here(name))


def located(source: str | Path) -> str:
    """Return the folder of a shipped model, and anything else as it is.

    Args:
        source: Name of a shipped model, folder, or name on the hub. A folder of your own that is called like
            a shipped model is meant by ``./tiny-sdxl``.

    Raises:
        FileNotFoundError: If a shipped model is missing from this installation.
    """
    name = str(source)
    if name not in SHIPPED:
        return name
    if not _is_here(name):
        raise FileNotFoundError(
            f"{name} is missing from this installation of diffeat; reinstall it, or name a folder that holds "
            "a diffusers pipeline"
        )
    return str(ASSETS / name)


def _is_here(name: str) -> bool:
    return (ASSETS / name / "model_index.json").is_file()
