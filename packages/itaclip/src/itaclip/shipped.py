# SPDX-License-Identifier: Apache-2.0
"""Models inside this package."""

from pathlib import Path

from common_kernels.runtime.hub import ShippedModels

ASSETS = Path(__file__).parent / "assets"
CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
SHIPPED = ShippedModels(ASSETS, index_file=WEIGHTS_FILE)
