# SPDX-License-Identifier: Apache-2.0
"""The toy segmenter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitron.demo.painters.find import Thing, choose, things_in
from vitron.demo.painters.painter import Toy
from vitron.demo.painters.words import read_phrase
from vitron.errors import UnsupportedRequestError
from vitron.protocol.contract import SpecialistSpec
from vitron.protocol.media import Artefact
from vitron.specialists.protocol import Request, Result
from vitron.specialists.words import quoted

_ALL = ("everything", "all", "panoptic")


class ToySegmenter(Toy):
    """Finds objects of one colour on a plain background by colour, shape, order, or a region on them."""

    @property
    def spec(self) -> SpecialistSpec:
        """Description of the specialist."""
        return SpecialistSpec(
            name="toy-segmenter",
            summary="marks and follows things of one colour on a plain background",
            tasks=("image_segmentation", "video_segmentation"),
            inputs=("image", "video"),
            outputs=("masks",),
            memory_bytes=1 << 20,
            licence="Apache-2.0",
        )

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Segment or track; see :class:`vitron.specialists.Specialist`."""
        if request.media is None:
            raise UnsupportedRequestError(f"the toy segmenter needs an image or a video for {request.module}")
        frames, (first, last) = request.media.frames, request.span
        found = [things_in(frame) for frame in frames]
        drawn = request.region.frame if request.region is not None else None
        start = min(first if drawn is None else drawn, len(frames) - 1)
        wanted = [
            thing for action in request.actions or [None] for thing in _meant(found[start], action, request)
        ]
        if not wanted:
            said = "; ".join(entry.text for entry in request.actions)
            raise UnsupportedRequestError(f"the toy segmenter finds nothing like {said[:60]!r}")
        masks = np.zeros((len(wanted), *frames.shape[:3]), dtype=np.bool_)
        for index, thing in enumerate(wanted):
            for step in (range(start, len(frames)), range(start - 1, -1, -1)):
                follow(masks[index], thing, found, step)
        masks[:, :first] = masks[:, last + 1 :] = False
        labels = tuple(f"{thing.colour} {thing.shape}" for thing in wanted)
        return Result(Artefact("masks", masks, labels), note=", ".join(labels))


def _meant(things: list[Thing], action: object, request: Request) -> list[Thing]:
    text = str(getattr(action, "text", ""))
    phrase = read_phrase(text)
    if request.mask is not None:
        mask = request.mask
        touched = [thing for thing in things if (thing.mask & mask).any()]
        fitting = choose(touched, phrase)
        # the text may use a name that is not known here: the region decides
        return sorted(fitting or touched, key=lambda thing: -int((thing.mask & mask).sum()))[:1]
    everything = getattr(action, "name", "") == "panoptic" or any(word in text.split() for word in _ALL)
    if phrase.is_empty and text.strip() and not everything:
        raise UnsupportedRequestError(f"the toy segmenter knows colours and shapes, not {quoted(text)}")
    return choose(things, phrase)


def follow(masks: NDArray[np.bool_], thing: Thing, found: list[list[Thing]], steps: range) -> None:
    """Track an object through further frames: the nearest one of the same colour and shape in each.

    Args:
        masks: Masks ``(T, H, W)``, written in place.
        thing: The object in the previous frame.
        found: All objects of all frames.
        steps: Frames in tracking order.
    """
    here = thing
    for step in steps:
        alike = [
            other for other in found[step] if other.colour == thing.colour and other.shape == thing.shape
        ] or [other for other in found[step] if other.colour == thing.colour]
        if alike:
            row, column = here.centre
            here = min(
                alike, key=lambda other: (other.centre[0] - row) ** 2 + (other.centre[1] - column) ** 2
            )
            masks[step] = here.mask
