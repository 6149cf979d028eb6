# SPDX-License-Identifier: Apache-2.0
"""The toy animator."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitron.demo.painters.edits import edit, fill_in, target
from vitron.demo.painters.find import choose, things_in
from vitron.demo.painters.painter import Toy, generate, size_of
from vitron.demo.painters.words import read_phrase
from vitron.errors import UnsupportedRequestError
from vitron.protocol.contract import MAX_PIXELS, SpecialistSpec
from vitron.protocol.media import MAX_FRAMES, Artefact
from vitron.specialists.pixels import animate
from vitron.specialists.protocol import Request, Result
from vitron.specialists.words import direction_of

_WAYS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1))


class ToyAnimator(Toy):
    """Animates shapes, and edits videos frame by frame."""

    @property
    def spec(self) -> SpecialistSpec:
        """Description of the specialist."""
        return SpecialistSpec(
            name="toy-animator",
            summary="animates coloured shapes; edits videos frame by frame",
            tasks=("text_to_video", "image_to_video", "video_editing"),
            inputs=("image", "video"),
            outputs=("video",),
            args={
                "type": "object",
                "properties": {"size": {"type": "string"}, "length": {"type": "integer"}},
            },
            memory_bytes=1 << 20,
            licence="Apache-2.0",
        )

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Draw or edit a video; see :class:`vitron.specialists.Specialist`."""
        if request.module == "video_editing":
            return Result(Artefact("video", _edit_frames(request, seed)))
        text = " and ".join(action.text for action in request.actions)
        if request.module == "text_to_video":
            image, mask = generate(text, size_of(request), seed), None
            text = text if direction_of(text) else ""
        elif request.media is not None:
            image, mask = request.media.frames[0], request.mask
        else:
            raise UnsupportedRequestError("the toy animator needs an image to animate")
        length = _length(request, image.shape[0] * image.shape[1])
        if mask is None:
            # the object that the text names if it is in the image, else the largest object
            named = choose(things_in(image), read_phrase(text)) if text else []
            mask = named[0].mask if named else target(image, "the largest thing", None)
        way = direction_of(text) or _WAYS[int(np.random.default_rng(seed).integers(len(_WAYS)))]
        return Result(Artefact("video", animate(image, fill_in(image, mask), mask, way, length)))


def _length(request: Request, pixels: int) -> int:
    length = int(request.args.get("length", 8))
    if not 1 <= length <= MAX_FRAMES:
        raise UnsupportedRequestError(f"the toy animator draws 1 to {MAX_FRAMES} frames, got {length}")
    if length * pixels > MAX_PIXELS:
        raise UnsupportedRequestError(
            f"the toy animator draws {MAX_PIXELS} pixels in all frames together, got {length * pixels}"
        )
    return length


def _edit_frames(request: Request, seed: int) -> NDArray[np.uint8]:
    if request.media is None:
        raise UnsupportedRequestError("the toy animator needs a video to edit")
    frames, (first, last) = request.media.frames, request.span
    out = frames.copy()
    for index in range(first, last + 1):
        # all instructions see the input video: the background must not be detected in a new foreground
        for action in request.actions:
            changed = edit(frames[index], action, request.mask, seed)
            out[index] = np.where((changed != frames[index]).any(axis=-1)[..., None], changed, out[index])
    return out
