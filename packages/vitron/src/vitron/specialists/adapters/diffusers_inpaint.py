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
    """Repaints a region and nothing else; reads ``VITRON_DIFFUSERS_INPAINT_MODEL``.

    Inpainting can remove, add and replace. Recolouring, moving and restyling need the object itself, which is
    hidden here: such requests are left to an instruction editor.
    """

    name = "diffusers-inpaint"
    summary = "repaints a region of an image"
    tasks = ("image_editing",)
    inputs = ("image",)
    outputs = ("image",)
    loader = "AutoPipelineForInpainting"
    needs_region = True

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Repaint the region; see :class:`vitron.specialists.Specialist`."""
        image = media_of(request, self.name).frames[0]
        if request.mask is None or not request.mask.any():
            raise UnsupportedRequestError(
                f"{self.name} changes a region: give one, or use a model with a mask head"
            )
        prompt = ", ".join(filter(None, map(prompt_of, request.actions)))
        size = image.shape[0], image.shape[1]
        # a margin, so that no edge of the old content shows
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
    """Return the prompt of an inpainting model for an instruction.

    Raises:
        UnsupportedRequestError: If inpainting cannot run the instruction.

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
