# SPDX-License-Identifier: Apache-2.0
"""Changes inside a region by any inpainting pipeline of diffusers."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitron.errors import UnsupportedRequestError
from vitron.protocol.media import Artefact
from vitron.protocol.regions.raster import dilate
from vitron.specialists.adapters.base import media_of, to_image, to_pixels
from vitron.specialists.adapters.diffusers_base import DiffusersAdapter, fitting
from vitron.specialists.protocol import Action, Request, Result

_EMPTY = "empty background, nothing there"


class DiffusersInpaint(DiffusersAdapter):
    """Paints anew what a region covers, and nothing else; reads ``VITRON_DIFFUSERS_INPAINT_MODEL``.

    Inpainting can remove, add and replace. To recolour, to move or to change a style needs the thing itself,
    which is hidden here: such requests are left to an instruction editor.
    """

    name = "diffusers-inpaint"
    summary = "paints anew what a region covers"
    tasks = ("image_editing",)
    inputs = ("image",)
    outputs = ("image",)
    loader = "AutoPipelineForInpainting"
    needs_region = True

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Paint; see :class:`vitron.specialists.Specialist`."""
        image = media_of(request, self.name).frames[0]
        if request.mask is None or not request.mask.any():
            raise UnsupportedRequestError(
                f"{self.name} changes what is marked: give a region, or have a model with a mask head call it"
            )
        prompt = ", ".join(filter(None, map(prompt_of, request.actions)))
        size = image.shape[0], image.shape[1]
        # a rim, so that no edge of what was there shows
        mask = dilate(request.mask, max(1, max(size) // 64))
        work = fitting(size, self.native)
        hole = Image.fromarray(mask.astype(np.uint8) * 255).resize(
            (work[1], work[0]), Image.Resampling.NEAREST
        )
        output, note = self.call(
            prompt,
            signal=signal,
            seed=seed,
            image=to_image(image, work),
            mask_image=hole,
            height=work[0],
            width=work[1],
        )
        painted = to_pixels(output.images[0], size)
        return Result(
            Artefact("image", np.where(mask[..., None], painted, image).astype(np.uint8)), note=note
        )


def prompt_of(action: Action) -> str:
    """Return what an inpainting model must paint for an instruction.

    Raises:
        UnsupportedRequestError: If painting a hole is not enough.

    Example:
        >>> prompt_of(Action("replace", "the dog with a cat"))
        'a cat'
    """
    match action.name:
        case "remove":
            return _EMPTY
        case "add" | "edit" | "replace":
            parts = re.split(r"\b(?:with|by|into)\b", action.text, maxsplit=1)
            return parts[-1].strip() or action.text
        case _:
            raise UnsupportedRequestError(f"inpainting cannot {action.name}: an instruction editor is needed")
