# SPDX-License-Identifier: Apache-2.0
"""Names, takes and ranks the activations of any diffusion model."""

from importlib.metadata import version

from diffeat import presets
from diffeat.names import Activation, ActivationName, list_activations

__version__ = version("diffeat")
__all__ = ["Activation", "ActivationName", "__version__", "list_activations", "presets"]
