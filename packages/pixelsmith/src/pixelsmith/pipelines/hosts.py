# SPDX-License-Identifier: Apache-2.0
"""Pipelines of diffusers for any size."""

# pyright: reportPrivateImportUsage=false, reportIncompatibleMethodOverride=false
# diffusers loads its public names lazily, which pyright takes for private ones; the calls differ on purpose

from __future__ import annotations

from typing import Any

import numpy as np
from diffusers import (
    FluxPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from diffusers.pipelines.flux.pipeline_output import FluxPipelineOutput
from diffusers.pipelines.stable_diffusion.pipeline_output import StableDiffusionPipelineOutput
from diffusers.pipelines.stable_diffusion_3.pipeline_output import StableDiffusion3PipelineOutput
from diffusers.pipelines.stable_diffusion_xl.pipeline_output import StableDiffusionXLPipelineOutput
from numpy.typing import NDArray
from PIL import Image

from pixelsmith.pipelines.mixin import PixelsmithMixin

_SCREENED = 512  # pixels of the longer side at which a large image is shown to the safety checker


class PixelsmithXLPipeline(PixelsmithMixin, StableDiffusionXLPipeline):
    """Stable Diffusion XL at any size. No watermark is added."""

    output = StableDiffusionXLPipelineOutput


class PixelsmithSDPipeline(PixelsmithMixin, StableDiffusionPipeline):
    """Stable Diffusion 1 and 2 at any size. A safety checker, if loaded, sees the shrunk result."""

    output = StableDiffusionPipelineOutput

    def _screen(self, pixels: NDArray[Any]) -> tuple[NDArray[Any], list[bool] | None]:
        if self.safety_checker is None:
            return pixels, None
        small = Image.fromarray(pixels)
        small.thumbnail((_SCREENED, _SCREENED))
        shown = np.asarray(small)[None].astype(np.float32) / 255
        _, flags = self.run_safety_checker(shown, self._execution_device, self.unet.dtype)
        flagged = [bool(flag) for flag in flags or ()]
        return (np.zeros_like(pixels) if any(flagged) else pixels), flagged

    def _fields(self, images: Any, flags: list[bool] | None) -> dict[str, Any]:
        return {"images": images, "nsfw_content_detected": flags}


class PixelsmithSD3Pipeline(PixelsmithMixin, StableDiffusion3Pipeline):
    """Stable Diffusion 3 at any size."""

    output = StableDiffusion3PipelineOutput


class PixelsmithFluxPipeline(PixelsmithMixin, FluxPipeline):
    """FLUX.1 at any size."""

    output = FluxPipelineOutput


_HOSTS: dict[str, type[Any]] = {
    "FluxPipeline": PixelsmithFluxPipeline,
    "StableDiffusion3Pipeline": PixelsmithSD3Pipeline,
    "StableDiffusionPipeline": PixelsmithSDPipeline,
    "StableDiffusionXLPipeline": PixelsmithXLPipeline,
}


def pipeline_for(name: str) -> type[Any]:
    """Return our subclass of a pipeline class of diffusers.

    Args:
        name: Name of the class, as in a model's index; one of ours is returned as it is.

    Raises:
        ValueError: If the class is not supported.
    """
    own = {kind.__name__: kind for kind in _HOSTS.values()} | _HOSTS
    if name not in own:
        raise ValueError(f"the model must be for one of {', '.join(_HOSTS)}, is for {name}")
    return own[name]
