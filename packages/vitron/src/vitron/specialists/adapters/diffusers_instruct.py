# SPDX-License-Identifier: Apache-2.0
"""Edits by an instruction, with pipelines such as InstructPix2Pix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitron.errors import UnsupportedRequestError
from vitron.protocol.media import Artefact
from vitron.specialists.adapters.base import media_of, text_of, to_image, to_pixels
from vitron.specialists.adapters.diffusers_base import DiffusersAdapter, fitting
from vitron.specialists.protocol import Request, Result


class DiffusersInstruct(DiffusersAdapter):
    """Edits an image by an instruction, a video frame by frame; reads ``VITRON_DIFFUSERS_INSTRUCT_MODEL``.

    With a region, the pixels outside of it are unchanged. Frames get the same noise; nothing else keeps them
    consistent, so a video may flicker.
    """

    name = "diffusers-instruct"
    summary = "edits images and videos by an instruction"
    tasks = ("image_editing", "video_editing")
    inputs = ("image", "video")
    outputs = ("image", "video")

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Edit; see :class:`vitron.specialists.Specialist`."""
        media = media_of(request, self.name)
        prompt = text_of(request, verbs=True)
        if not prompt:
            raise UnsupportedRequestError(f"{self.name} needs an instruction")
        frames, note, (first, last) = media.frames.copy(), "", request.span
        work = fitting(media.size, self.native)
        for index in range(first, last + 1):
            output, note = self.call(
                prompt,
                signal=signal,
                seed=seed,
                image=to_image(frames[index], work),
                height=work[0],
                width=work[1],
            )
            changed = to_pixels(output.images[0], media.size)
            keep = request.mask if media.kind == "image" or request.mask is None else None
            frames[index] = changed if keep is None else np.where(keep[..., None], changed, frames[index])
        return Result(Artefact(media.kind, frames.reshape(media.data.shape)), note=note)
