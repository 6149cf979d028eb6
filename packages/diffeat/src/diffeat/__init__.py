# SPDX-License-Identifier: Apache-2.0
"""Names, takes and ranks the activations of any diffusion model."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from diffeat import presets
from diffeat.capture.context import Recording, capture
from diffeat.names import ActivationName

if TYPE_CHECKING:
    from diffeat.capture.collect import Storage
    from diffeat.capture.maps import MapOptions
    from diffeat.extractor import FeatureExtractor
    from diffeat.features import Features
    from diffeat.names import Activation, list_activations
    from diffeat.ranking import Ranker
    from diffeat.store import FeatureStore
    from diffeat.store.transformer import FeatureTransformer

__version__ = version("diffeat")
__all__ = [
    "Activation",
    "ActivationName",
    "FeatureExtractor",
    "FeatureStore",
    "FeatureTransformer",
    "Features",
    "MapOptions",
    "Ranker",
    "Recording",
    "Storage",
    "__version__",
    "capture",
    "list_activations",
    "presets",
]

# loaded on first use: torch alone takes seconds
_HOMES = {
    "Activation": "diffeat.names",
    "FeatureExtractor": "diffeat.extractor",
    "FeatureStore": "diffeat.store",
    "FeatureTransformer": "diffeat.store.transformer",
    "Features": "diffeat.features",
    "MapOptions": "diffeat.capture.maps",
    "Ranker": "diffeat.ranking",
    "Storage": "diffeat.capture.collect",
    "list_activations": "diffeat.names",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
