# SPDX-License-Identifier: Apache-2.0
"""Text to image at any size, with pixelsmith."""

from __future__ import annotations

import math
import re
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitron.errors import UnsupportedRequestError
from vitron.protocol.contract import MAX_PIXELS
from vitron.protocol.media import Artefact
from vitron.specialists.adapters.base import DRAWN_ONLY, Adapter, free, is_loaded, text_of, to_pixels
from vitron.specialists.protocol import Request, Result

_STEPS = 20  # for the bundled model, whose images do not gain from more


class PixelsmithPainter(Adapter):
    """Generates images from text, at the model's own size or larger, patch by patch."""

    name = "pixelsmith"
    summary = "generates images of any size"
    tasks = ("text_to_image",)
    outputs = ("image",)
    packages = ("pixelsmith", "torch", "diffusers")
    bundled = "tiny-sdxl"
    bundled_bytes = 80_000_000
    bundled_preference = DRAWN_ONLY
    arguments = {"size": "string"}  # noqa: RUF012  # annotated as a class variable above
    _pipe: Any = None

    def load(self, device: str, dtype: str) -> None:
        """Load the pipeline."""
        from common_kernels.runtime.hub import quiet_libraries
        from pixelsmith.adapters import load_pipeline

        with quiet_libraries("diffusers", "transformers"):
            self._pipe = load_pipeline(self.model_name, device=device, dtype=dtype)  # pyright: ignore[reportArgumentType]  # checked there
        self._pipe.set_progress_bar_config(disable=True)

    @cached_property
    def _vocabulary(self) -> set[str]:
        """Whole words of the bundled model's tokenizer, its complete vocabulary."""
        read = self._pipe.tokenizer.get_vocab()
        return {word.removesuffix("</w>") for word in read if word.endswith("</w>") and len(word) > 5}

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Generate; see :class:`vitron.specialists.Specialist`."""
        pipe, text = is_loaded(self._pipe, self.name), text_of(request)
        if not self.is_named:
            strange = sorted(set(re.findall(r"[a-z]{3,}", text.lower())) - self._vocabulary)
            if strange or not text:
                raise UnsupportedRequestError(
                    f"the small model of pixelsmith knows drawn shapes, not {', '.join(strange) or 'silence'}"
                )
        asked = request.args.get("size")
        size: tuple[int, int] | None = None
        settings: dict[str, Any] = {}
        if asked is not None:
            width, height = map(int, str(asked).split("x"))
            if width * height > MAX_PIXELS:
                raise UnsupportedRequestError(
                    f"pixelsmith generates at most {MAX_PIXELS} pixels here, got {asked}"
                )
            size = (height, width)
            settings = {"height": _round(height), "width": _round(width)}
        else:
            native = int(
                pipe.unet.config.sample_size if hasattr(pipe, "unet") else pipe.transformer.config.sample_size
            )
            settings = {"height": native * pipe.vae_scale_factor, "width": native * pipe.vae_scale_factor}
        if not self.is_named:
            settings["num_inference_steps"] = _STEPS
        image = pipe(text, seed=seed, output_type="np", **settings).images[0]
        return Result(Artefact("image", to_pixels(image, size)), note=text)

    def unload(self) -> None:
        """Delete the pipeline."""
        self._pipe = None
        self.__dict__.pop("_vocabulary", None)
        free()


def _round(side: int) -> int:
    """Round up to a multiple of a latent cell; the image is resized afterwards."""
    return max(32, math.ceil(side / 16) * 16)
