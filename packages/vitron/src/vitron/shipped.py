# SPDX-License-Identifier: Apache-2.0
"""The models that come with the package."""

from importlib import resources
from pathlib import Path

from common_kernels.runtime.hub import ShippedModels

__all__ = ["SHIPPED", "TRAINING_DOMAINS"]

# what the models were trained on, where it is no photographs; see VitronConfig.training_domain
TRAINING_DOMAINS = {"vitron-tiny": "drawn scenes of coloured shapes"}
SHIPPED = ShippedModels(Path(str(resources.files("vitron"))) / "assets")
