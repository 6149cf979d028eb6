# SPDX-License-Identifier: Apache-2.0
"""The models that come with the package."""

from importlib import resources
from pathlib import Path

from common_kernels.runtime.hub import ShippedModels, find_model

__all__ = ["SHIPPED"]

SHIPPED = ShippedModels(Path(str(resources.files("vitron"))) / "assets")


def model_folder(name_or_path: str | Path) -> str:
    return str(find_model(name_or_path, shipped=SHIPPED))
