# SPDX-License-Identifier: Apache-2.0
"""Edits of images without a model: remove, recolour, move, restyle, animate; any image."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from vitron.errors import UnsupportedRequestError
from vitron.protocol.contract import (
    MAX_PIXELS,
    BoxRegion,
    MaskRegion,
    PointsRegion,
    ScribbleRegion,
    SpecialistSpec,
)
from vitron.protocol.media import MAX_FRAMES, Artefact
from vitron.protocol.regions.raster import dilate
from vitron.specialists.pixels import animate, fill, move, recolour, restyle, zoom
from vitron.specialists.protocol import Action, Request, Result
from vitron.specialists.random_walker import read_strokes, segment_region
from vitron.specialists.words import (
    COLOURS,
    colours_of,
    direction_of,
    guess_edit,
    pixels_of,
    quoted,
    words_of,
)

__all__ = ["Retouch"]

FRAMES = 16  # of a video, if the call names no length
MARGIN = 64  # a hole is wider than its object by the longer side over this: no edge of it shows
_NOTE = "changed by rules, without a generative model"

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class Retouch:
    """Specialist that changes pixels by rules, where no generative model is set up.

    The object is that of the user's region, segmented as by
    :class:`~vitron.specialists.random_walker.RandomWalkerSegmenter`, or of the mask head of the model that
    wrote the call. It invents nothing: requests to add or to replace an object are refused.
    """

    @property
    def spec(self) -> SpecialistSpec:
        """Description of the specialist."""
        return SpecialistSpec(
            name="retouch",
            summary="removes, recolours, moves, restyles and animates by rules, on any image",
            tasks=("image_editing", "video_editing", "image_to_video"),
            inputs=("image", "video"),
            outputs=("image", "video"),
            args={"type": "object", "properties": {"length": {"type": "integer"}}},
            needs_region=True,
            licence="Apache-2.0",
        )

    def load(self, device: str, dtype: str) -> None:
        """Do nothing: there are no weights."""

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Edit or animate an image, or edit a video; see :class:`vitron.specialists.Specialist`.

        Raises:
            UnsupportedRequestError: If the request needs an object and there is none, or needs a generative
                model.
        """
        media = request.media
        if media is None:
            raise UnsupportedRequestError(f"retouch needs an image or a video for {request.module}")
        if request.module == "video_editing":
            return Result(Artefact("video", _edited_frames(media.frames, request), fps=media.fps), note=_NOTE)
        image = media.frames[0]
        mask = _object(image, request, seed)
        if request.module == "image_to_video":
            return Result(Artefact("video", _animated(image, mask, request)), note=_NOTE)
        drawn = mask if request.region is not None else None
        for action in request.actions:
            image = _edited(image, action, mask, drawn)
        return Result(Artefact("image", image), note=_NOTE)

    def unload(self) -> None:
        """Do nothing: there are no weights."""


def _object(image: Pixels, request: Request, seed: int) -> Mask | None:
    """Return the mask of the object that is meant, ``(H, W)``; ``None`` if there is none."""
    mask, region = request.mask, request.region
    match region:
        case BoxRegion() | PointsRegion() | ScribbleRegion():
            mask = segment_region(image, region, seed=seed)
        case MaskRegion(brush=True) if mask is not None and read_strokes(mask)[0] != "area":
            mask = segment_region(image, region, seed=seed)
    return mask if mask is not None and mask.any() else None


def _edited(image: Pixels, action: Action, mask: Mask | None, drawn: Mask | None) -> Pixels:
    """Run one instruction; a style is for the whole image unless the user drew a region."""
    name, text = _name_of(action), action.text
    match name:
        case "restyle":
            return restyle(image, text, drawn)
        case "remove":
            return fill(image, _hole(_found(mask, name)))
        case "recolour" | "foreground" | "background":
            named, found = colours_of(text), _found(mask, name)
            if not named:
                raise UnsupportedRequestError(f"retouch knows {', '.join(COLOURS)}, got {quoted(text)}")
            return recolour(image, ~found if name == "background" else found, COLOURS[named[-1]])
        case "move":
            return _moved(image, text, _found(mask, name))
        case _:
            raise UnsupportedRequestError(f"retouch cannot {name}: an image generation model is needed")


def _name_of(action: Action) -> str:
    return guess_edit(action.text) if action.name == "edit" else action.name


def _found(mask: Mask | None, name: str) -> Mask:
    if mask is None:
        raise UnsupportedRequestError(
            f"retouch finds nothing to {name}: draw a region around the object of an image"
        )
    return mask


def _hole(mask: Mask) -> Mask:
    return dilate(mask, max(1, max(mask.shape) // MARGIN))


def _moved(image: Pixels, text: str, mask: Mask) -> Pixels:
    """Move as in "the cup to the left by 12": pixels, else a quarter of the side."""
    way = direction_of(re.split(r"\bto\b", text)[-1]) or direction_of(text)
    if way is None:
        raise UnsupportedRequestError(f"retouch needs a direction to move to, got {quoted(text)}")
    named = pixels_of(text)
    down, right = (
        step * (side // 4 if named is None else named) for step, side in zip(way, mask.shape, strict=True)
    )
    return move(image, mask, down, right, _hole(mask))


def _animated(image: Pixels, mask: Mask | None, request: Request) -> Pixels:
    length = int(request.args.get("length", FRAMES))
    if not 1 <= length <= MAX_FRAMES or length * image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise UnsupportedRequestError(
            f"retouch makes 1 to {MAX_FRAMES} frames and {MAX_PIXELS} pixels in all, got {length} frames"
        )
    text = " and ".join(action.text for action in request.actions)
    if "zoom" in words_of(text):
        return zoom(image, out="out" in words_of(text), length=length)
    way = direction_of(text) or (0, 1)
    mask = _found(mask, "animate")
    return animate(image, fill(image, _hole(mask)), mask, way, length)


def _edited_frames(frames: Pixels, request: Request) -> Pixels:
    """Edit the frames that are meant, each with the object's own mask."""
    (first, last), out = request.span, frames.copy()
    for index in range(first, last + 1):
        mask = None if request.track is None else request.track[index - first]
        is_gone = mask is not None and not mask.any()
        for action in request.actions:
            if not is_gone or _name_of(action) in ("restyle", "background"):
                out[index] = _edited(out[index], action, mask, None)
    return out
