# SPDX-License-Identifier: Apache-2.0
"""The models that come with the package."""

from importlib import resources
from pathlib import Path

from common_kernels.runtime.hub import ShippedModels

__all__ = ["SHIPPED"]

SHIPPED = ShippedModels(Path(str(resources.files("vitron"))) / "assets")
