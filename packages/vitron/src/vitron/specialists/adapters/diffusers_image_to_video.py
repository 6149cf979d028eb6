# SPDX-License-Identifier: Apache-2.0
"""Videos from an image by any image-to-video pipeline of diffusers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitron.protocol.media import Artefact
from vitron.specialists.adapters.base import media_of, text_of, to_image
from vitron.specialists.adapters.diffusers_base import DiffusersAdapter, asked_length, fitting, frames_of
from vitron.specialists.protocol import Request, Result


class DiffusersImageToVideo(DiffusersAdapter):
    """Animates an image; reads ``VITRON_DIFFUSERS_IMAGE_TO_VIDEO_MODEL``.

    Pipelines without a prompt, such as Stable Video Diffusion, get the image alone.
    """

    name = "diffusers-image-to-video"
    summary = "animates an image"
    tasks = ("image_to_video",)
    inputs = ("image",)
    outputs = ("video",)
    arguments = {"length": "integer"}  # noqa: RUF012  # annotated as a class variable above

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Generate a video; see :class:`vitron.specialists.Specialist`."""
        media = media_of(request, self.name)
        work = fitting(media.size, self.native)
        output, note = self.call(
            text_of(request),
            signal=signal,
            seed=seed,
            image=to_image(media.frames[0], work),
            height=work[0],
            width=work[1],
            num_frames=asked_length(request, self.name),
        )
        return Result(Artefact("video", frames_of(output, media.size)), note=note)
