# SPDX-License-Identifier: Apache-2.0
"""Models of diffusers, and functions, as models of a job."""

from pixelsmith.adapters.assets import shipped_models
from pixelsmith.adapters.base import Condition
from pixelsmith.adapters.callable import CallableModel
from pixelsmith.adapters.control import Control
from pixelsmith.adapters.families import from_pipeline
from pixelsmith.adapters.loading import load_model, load_pipeline
from pixelsmith.adapters.models import PipelineModel
from pixelsmith.adapters.options import ModelOptions, PatchPlace
from pixelsmith.adapters.outline import read_outline

__all__ = [
    "CallableModel",
    "Condition",
    "Control",
    "ModelOptions",
    "PatchPlace",
    "PipelineModel",
    "from_pipeline",
    "load_model",
    "load_pipeline",
    "read_outline",
    "shipped_models",
]
