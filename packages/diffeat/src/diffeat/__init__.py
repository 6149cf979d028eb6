# SPDX-License-Identifier: Apache-2.0
"""Names, takes and ranks the activations of any diffusion model."""

from importlib.metadata import version

from diffeat import presets
from diffeat.capture.collect import Storage
from diffeat.capture.context import Recording, capture
from diffeat.capture.maps import MapOptions
from diffeat.extractor import FeatureExtractor
from diffeat.features import Features
from diffeat.names import Activation, ActivationName, list_activations

__version__ = version("diffeat")
__all__ = [
    "Activation",
    "ActivationName",
    "FeatureExtractor",
    "Features",
    "MapOptions",
    "Recording",
    "Storage",
    "__version__",
    "capture",
    "list_activations",
    "presets",
]
