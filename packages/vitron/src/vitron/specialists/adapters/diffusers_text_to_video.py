# SPDX-License-Identifier: Apache-2.0
"""Videos from text by any text-to-video pipeline of diffusers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitron.protocol.media import Artefact
from vitron.specialists.adapters.base import text_of
from vitron.specialists.adapters.diffusers_base import (
    DiffusersAdapter,
    asked_length,
    asked_size,
    fitting,
    frames_of,
)
from vitron.specialists.protocol import Request, Result


class DiffusersTextToVideo(DiffusersAdapter):
    """Generates videos from text; reads ``VITRON_DIFFUSERS_TEXT_TO_VIDEO_MODEL``."""

    name = "diffusers-text-to-video"
    summary = "generates videos from text"
    tasks = ("text_to_video",)
    outputs = ("video",)
    arguments = {"size": "string", "length": "integer"}  # noqa: RUF012  # annotated as a class variable above

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Generate a video; see :class:`vitron.specialists.Specialist`."""
        size, length = asked_size(request, self.name), asked_length(request, self.name)
        height, width = (None, None) if size is None else fitting(size)
        output, note = self.call(
            text_of(request), signal=signal, seed=seed, height=height, width=width, num_frames=length
        )
        return Result(Artefact("video", frames_of(output, size)), note=note)
