# SPDX-License-Identifier: Apache-2.0
"""Images from text by any text-to-image pipeline of diffusers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitron.protocol.media import Artefact
from vitron.specialists.adapters.base import text_of, to_pixels
from vitron.specialists.adapters.diffusers_base import DiffusersAdapter, asked_size, fitting
from vitron.specialists.protocol import Request, Result


class DiffusersTextToImage(DiffusersAdapter):
    """Generates images from text; reads ``VITRON_DIFFUSERS_TEXT_TO_IMAGE_MODEL``."""

    name = "diffusers-text-to-image"
    summary = "generates images from text"
    tasks = ("text_to_image",)
    outputs = ("image",)
    loader = "AutoPipelineForText2Image"
    arguments = {"size": "string"}  # noqa: RUF012  # annotated as a class variable above

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Generate an image; see :class:`vitron.specialists.Specialist`."""
        size = asked_size(request, self.name)
        height, width = (None, None) if size is None else fitting(size)
        output, note = self.call(text_of(request), signal=signal, seed=seed, height=height, width=width)
        return Result(Artefact("image", to_pixels(output.images[0], size)), note=note)
