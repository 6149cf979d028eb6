# SPDX-License-Identifier: Apache-2.0
"""The models that come with the package, by name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

__all__ = ["list_models", "model_folder"]

_ASSETS = "assets"
_HUB_SECONDS = 5.0


def list_models() -> list[str]:
    """Return the names of the models that come with the package."""
    folder = resources.files("vitron") / _ASSETS
    if not folder.is_dir():
        return []
    return sorted(each.name for each in folder.iterdir() if (each / "config.json").is_file())


def model_folder(name_or_path: str | Path) -> str:
    """Return the folder of a model that comes with the package; a folder, or a name on a hub, as it is.

    Raises:
        ValueError: If it is neither, or the hub does not answer and was never asked for this model before.
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
    if not Path(name).exists():
        _ask_hub(name)
    return name


def _ask_hub(name: str) -> None:
    """Ask once whether the hub answers: loading would try again and again for more than a minute."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return
        get_hf_file_metadata(hf_hub_url(name, "config.json"), timeout=_HUB_SECONDS)
    except (HfHubHTTPError, HFValidationError):
        return  # what the answer means is said where the model is loaded
    except Exception as error:  # of whichever HTTP library the hub's client has
        raise ValueError(
            f"{name} is no folder here, and the hub does not answer: check the connection, or give a folder"
        ) from error
