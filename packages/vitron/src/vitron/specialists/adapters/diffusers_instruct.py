# SPDX-License-Identifier: Apache-2.0
"""Changes by a sentence with pipelines that take an image and an instruction, as InstructPix2Pix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitron.errors import UnsupportedRequestError
from vitron.protocol.media import Artefact
from vitron.specialists.adapters.base import media_of, text_of, to_image, to_pixels
from vitron.specialists.adapters.diffusers_base import DiffusersAdapter, fitting
from vitron.specialists.protocol import Request, Result


class DiffusersInstruct(DiffusersAdapter):
    """Changes an image by a sentence, a video frame by frame; reads ``VITRON_DIFFUSERS_INSTRUCT_MODEL``.

    With a region, all outside of it stays as it was. Frames get the same noise; nothing else holds them
    together, so a video may flicker.
    """

    name = "diffusers-instruct"
    summary = "changes images and videos by a sentence"
    tasks = ("image_editing", "video_editing")
    inputs = ("image", "video")
    outputs = ("image", "video")

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Change; see :class:`vitron.specialists.Specialist`."""
        media = media_of(request, self.name)
        prompt = text_of(request, verbs=True)
        if not prompt:
            raise UnsupportedRequestError(f"{self.name} needs a sentence")
        first, last = request.frames or (0, media.num_frames - 1)
        if first >= media.num_frames:
            raise UnsupportedRequestError(f"the video has {media.num_frames} frames and no frame {first}")
        frames, note = media.frames.copy(), ""
        work = fitting(media.size, self.native)
        for index in range(first, min(last, media.num_frames - 1) + 1):
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
