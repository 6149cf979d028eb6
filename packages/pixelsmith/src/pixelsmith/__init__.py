# SPDX-License-Identifier: Apache-2.0
"""Pixelsmith: images of any size from diffusion models, within the memory of one patch."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from pixelsmith.core.config import JobConfig
from pixelsmith.store.canvas import Canvas

if TYPE_CHECKING:
    from pixelsmith.adapters import from_pipeline, load_model
    from pixelsmith.pipelines import (
        PixelsmithFluxPipeline,
        PixelsmithSD3Pipeline,
        PixelsmithSDPipeline,
        PixelsmithXLPipeline,
    )

__version__ = version("pixelsmith")

__all__ = [
    "Canvas",
    "JobConfig",
    "PixelsmithFluxPipeline",
    "PixelsmithSD3Pipeline",
    "PixelsmithSDPipeline",
    "PixelsmithXLPipeline",
    "__version__",
    "from_pipeline",
    "load_model",
]

# loaded on first use: diffusers alone takes seconds
_HOMES = {
    "PixelsmithFluxPipeline": "pixelsmith.pipelines",
    "PixelsmithSD3Pipeline": "pixelsmith.pipelines",
    "PixelsmithSDPipeline": "pixelsmith.pipelines",
    "PixelsmithXLPipeline": "pixelsmith.pipelines",
    "from_pipeline": "pixelsmith.adapters",
    "load_model": "pixelsmith.adapters",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
