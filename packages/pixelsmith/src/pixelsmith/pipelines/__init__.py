# SPDX-License-Identifier: Apache-2.0
"""Pipelines of diffusers at any size, in RAM."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixelsmith.pipelines.hosts import (
        PixelsmithFluxPipeline,
        PixelsmithSD3Pipeline,
        PixelsmithSDPipeline,
        PixelsmithXLPipeline,
    )

__all__ = [
    "PixelsmithFluxPipeline",
    "PixelsmithSD3Pipeline",
    "PixelsmithSDPipeline",
    "PixelsmithXLPipeline",
    "pipeline_for",
]

_HOSTS = {
    "FluxPipeline": "PixelsmithFluxPipeline",
    "StableDiffusion3Pipeline": "PixelsmithSD3Pipeline",
    "StableDiffusionPipeline": "PixelsmithSDPipeline",
    "StableDiffusionXLPipeline": "PixelsmithXLPipeline",
}


def pipeline_for(name: str) -> Any:
    """Return our pipeline class that stands above one of diffusers.

    Args:
        name: Of the class, as a model's index has it; one of ours stands for itself.

    Raises:
        ValueError: If there is none.
    """
    own = name if name in _HOSTS.values() else _HOSTS.get(name)
    if own is None:
        raise ValueError(f"the model must be for one of {', '.join(_HOSTS)}, is for {name}")
    return getattr(import_module("pixelsmith.pipelines.hosts"), own)


def __getattr__(name: str) -> object:
    # loaded on first use: diffusers takes seconds
    if name in _HOSTS.values():
        return getattr(import_module("pixelsmith.pipelines.hosts"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
