# SPDX-License-Identifier: Apache-2.0
"""The toy painter."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from vitron.demo.painters.edits import edit
from vitron.demo.painters.shapes import (
    Pixels,
    blank,
    colour_for,
    place_for,
    shape_mask,
    side_for,
    stamp,
)
from vitron.demo.painters.words import background_of, read_things
from vitron.errors import UnsupportedRequestError
from vitron.protocol.contract import SpecialistSpec
from vitron.protocol.media import Artefact
from vitron.specialists.protocol import Request, Result
from vitron.specialists.words import COLOURS, quoted

MAX_SIDE = 4096


class Toy:
    """Base of the toy specialists, which have nothing to load or free."""

    def load(self, device: str, dtype: str) -> None:
        """Do nothing."""

    def unload(self) -> None:
        """Do nothing."""


class ToyPainter(Toy):
    """Draws and edits coloured shapes, and filters images."""

    @property
    def spec(self) -> SpecialistSpec:
        """Description of the specialist."""
        return SpecialistSpec(
            name="toy-painter",
            summary="draws and edits coloured shapes; filters images",
            tasks=("text_to_image", "image_editing", "restoration"),
            inputs=("image",),
            outputs=("image",),
            args={
                "type": "object",
                "properties": {"size": {"type": "string"}, "scale": {"type": "integer"}},
            },
            memory_bytes=1 << 20,
            licence="Apache-2.0",
        )

    def run(self, request: Request, *, signal: NDArray[np.float32] | None = None, seed: int = 0) -> Result:
        """Draw, edit or filter; see :class:`vitron.specialists.Specialist`."""
        if request.module == "text_to_image":
            text = " and ".join(action.text for action in request.actions)
            return Result(Artefact("image", generate(text, size_of(request), seed)))
        if request.media is None:
            raise UnsupportedRequestError(f"the toy painter needs an image for {request.module}")
        image = request.media.frames[0]
        if request.module == "restoration":
            scale = int(request.args.get("scale", 2))
            for action in request.actions:
                image = restore(image, action.name, scale)
        else:
            for action in request.actions:
                image = edit(image, action, request.mask, seed)
        return Result(Artefact("image", image))


def size_of(request: Request) -> tuple[int, int]:
    """Return the requested height and width, 64 by default.

    Raises:
        UnsupportedRequestError: If a side is too long.
    """
    width, height = map(int, str(request.args.get("size", "64x64")).split("x"))
    if not 8 <= min(width, height) <= max(width, height) <= MAX_SIDE:
        raise UnsupportedRequestError(
            f"the toy painter draws 8 to {MAX_SIDE} pixels a side, got {width}x{height}"
        )
    return height, width


def generate(text: str, size: tuple[int, int], seed: int) -> Pixels:
    """Draw the objects that a text names.

    Args:
        text: Description, such as "a red circle at the left and two small blue stars on a green background".
        size: Height and width in pixels.
        seed: Random seed of positions and colours.

    Returns:
        ``(*size, 3)``, uint8.

    Raises:
        UnsupportedRequestError: If the text names no shape.
    """
    things, rng = read_things(text), np.random.default_rng(seed)
    if not things:
        raise UnsupportedRequestError(
            f"the toy painter draws circles, squares and the like, got {quoted(text)}"
        )
    canvas = blank(*size, background_of(text))
    taken = np.zeros(size, dtype=np.bool_)
    for phrase in things:
        for _ in range(phrase.count):
            side = side_for(phrase, *size)
            row, column = place_for(phrase, side, taken, rng)
            colour = COLOURS[colour_for(phrase, rng)]
            stamp(canvas, shape_mask(phrase.shape or "circle", side, side), row, column, colour)
            taken[row : row + side, column : column + side] = True
    return canvas


def restore(image: Pixels, action: str, scale: int) -> Pixels:
    """Filter an image: a median against noise and blocks, an unsharp mask, Lanczos for more pixels.

    Raises:
        UnsupportedRequestError: If the result would be too large.
    """
    pil = Image.fromarray(image)
    match action:
        case "upscale":
            if not 1 <= scale <= 8 or max(pil.size) * scale > MAX_SIDE:
                raise UnsupportedRequestError(
                    f"the toy painter enlarges by 1 to 8 up to {MAX_SIDE} pixels a side, got {scale} times"
                )
            size = (pil.width * scale, pil.height * scale)
            pil = pil.resize(size, Image.Resampling.LANCZOS)
        case "deblur":
            pil = pil.filter(ImageFilter.UnsharpMask(radius=2, percent=120, threshold=2))
        case _:
            pil = pil.filter(ImageFilter.MedianFilter(3))
    return np.asarray(pil, dtype=np.uint8)
