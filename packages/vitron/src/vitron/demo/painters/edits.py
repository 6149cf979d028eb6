# SPDX-License-Identifier: Apache-2.0
"""Edits of one image; a video is edited frame by frame."""

from __future__ import annotations

import re

import numpy as np

from vitron.demo.painters.find import background_colour, choose, things_in
from vitron.demo.painters.shapes import (
    Mask,
    Pixels,
    colour_for,
    place_for,
    shape_mask,
    side_for,
    stamp,
)
from vitron.demo.painters.words import read_phrase
from vitron.errors import UnsupportedRequestError
from vitron.protocol.regions.raster import dilate
from vitron.specialists.pixels import box_of, restyle
from vitron.specialists.protocol import Action
from vitron.specialists.words import COLOURS, colours_of, direction_of, guess_edit, pixels_of, quoted


def edit(image: Pixels, action: Action, mask: Mask | None, seed: int) -> Pixels:
    """Run one instruction.

    Args:
        image: Image ``(H, W, 3)``, uint8; not changed.
        action: Action and its text; for ``edit`` the action is inferred from the text.
        mask: Region to edit, ``(H, W)``; ``None`` finds the object that the text names.
        seed: Random seed.

    Raises:
        UnsupportedRequestError: If the text names no object in the image, or no edit.
    """
    name, text = action.name, action.text
    name = guess_edit(text) if name == "edit" else name
    match name:
        case "remove":
            return fill_in(image, target(image, text, mask))
        case "recolour":
            return _recolour(image, text, mask)
        case "replace":
            return _replace(image, text, mask, seed)
        case "move":
            return _move(image, text, mask)
        case "add":
            return _add(image, text, mask, seed)
        case "foreground":
            things = mask if mask is not None else target(image, "", None)
            return _paint(image, things, _last_colour(text))
        case "background":
            things = mask if mask is not None else target(image, "", None)
            return _paint(image, ~things, _last_colour(text))
        case "restyle":
            return restyle(image, text, mask)
        case _:
            raise UnsupportedRequestError(f"the toy painter cannot {name}")


def target(image: Pixels, text: str, mask: Mask | None) -> Mask:
    """Return the mask to edit: the given one, or that of the named objects; an empty text means all objects.

    Raises:
        UnsupportedRequestError: If there is no such object.
    """
    if mask is not None:
        return mask
    phrase = read_phrase(text)
    if text.strip() and phrase.is_empty:
        raise UnsupportedRequestError(f"the toy painter knows colours and shapes, not {quoted(text)}")
    found = choose(things_in(image), phrase)
    if not found:
        raise UnsupportedRequestError(f"the toy painter finds nothing like {quoted(text)} in the image")
    return np.asarray(np.any([thing.mask for thing in found], axis=0), dtype=np.bool_)


def fill_in(image: Pixels, mask: Mask) -> Pixels:
    """Fill a mask and one pixel around it from its edge inwards, each pixel by the mean of its neighbours."""
    out, unknown = image.astype(np.float64), dilate(mask, 1)
    if unknown.all():
        return image.copy()
    while unknown.any():
        known = np.pad(~unknown, 1)
        values = np.pad(out, ((1, 1), (1, 1), (0, 0))) * known[..., None]
        shifts = ((slice(0, -2), slice(1, -1)), (slice(2, None), slice(1, -1)))
        shifts += ((slice(1, -1), slice(0, -2)), (slice(1, -1), slice(2, None)))
        count = np.sum([known[shift] for shift in shifts], axis=0)
        total = np.sum([values[shift] for shift in shifts], axis=0)
        ready = unknown & (count > 0)
        out[ready] = total[ready] / count[ready][:, None]
        unknown &= ~ready
    return out.round().astype(np.uint8)


def _last_colour(text: str) -> str:
    colours = colours_of(text)
    if not colours:
        raise UnsupportedRequestError(f"the toy painter needs a colour, got {quoted(text)}")
    return colours[-1]


def _paint(image: Pixels, mask: Mask, colour: str) -> Pixels:
    """Recolour the masked pixels; their shading is kept."""
    out, part = image.astype(np.float64), image[mask].astype(np.float64)
    if part.size:
        out[mask] = part - part.mean(axis=0) + COLOURS[colour]
    return out.round().clip(0, 255).astype(np.uint8)


def _recolour(image: Pixels, text: str, mask: Mask | None) -> Pixels:
    """Edit as in "the red circle to blue", "the circle blue", or, with a mask, "blue"."""
    colour = _last_colour(text)
    before = re.split(r"\b(?:to|into|in|as)\b", text)
    what = before[0] if len(before) > 1 else " ".join(text.split()[:-1])
    if mask is None and not what.strip():
        raise UnsupportedRequestError(f"the toy painter needs a thing to recolour, got {quoted(text)}")
    return _paint(image, target(image, what, mask), colour)


def _replace(image: Pixels, text: str, mask: Mask | None, seed: int) -> Pixels:
    """Edit as in "the red circle with a blue star"."""
    parts = re.split(r"\b(?:with|by)\b", text, maxsplit=1)
    new = read_phrase(parts[-1])
    if len(parts) < 2 or new.shape is None:
        raise UnsupportedRequestError(f"the toy painter replaces one thing with a shape, got {quoted(text)}")
    old = target(image, parts[0], mask)
    out = fill_in(image, old)
    top, left, bottom, right = box_of(old)
    colour = COLOURS[colour_for(new, np.random.default_rng(seed))]
    stamp(out, shape_mask(new.shape, bottom - top, right - left), top, left, colour)
    return out


def _move(image: Pixels, text: str, mask: Mask | None) -> Pixels:
    """Edit as in "the red circle to the left by 12": pixels, else a quarter of the side."""
    way = direction_of(re.split(r"\bto\b", text)[-1]) or direction_of(text)
    if way is None:
        raise UnsupportedRequestError(f"the toy painter needs a direction to move to, got {quoted(text)}")
    what = target(image, re.split(r"\bto\b", text)[0], mask)
    size = image.shape[:2]
    step = pixels_of(text)
    down, right = (way[axis] * (size[axis] // 4 if step is None else step) for axis in (0, 1))
    out = fill_in(image, what)
    rows, columns = np.nonzero(what)
    to_rows, to_columns = rows + down, columns + right
    inside = (to_rows >= 0) & (to_rows < size[0]) & (to_columns >= 0) & (to_columns < size[1])
    out[to_rows[inside], to_columns[inside]] = image[rows[inside], columns[inside]]
    return out


def _add(image: Pixels, text: str, mask: Mask | None, seed: int) -> Pixels:
    """Edit as in "a small blue star at the top left"; with a mask, into its box."""
    phrase = read_phrase(text)
    if phrase.shape is None:
        raise UnsupportedRequestError(f"the toy painter adds a shape, got {quoted(text)}")
    rng, out = np.random.default_rng(seed), image.copy()
    colour = COLOURS[colour_for(phrase, rng)]
    if mask is not None and mask.any():
        top, left, bottom, right = box_of(mask)
        stamp(out, shape_mask(phrase.shape, bottom - top, right - left), top, left, colour)
        return out
    height, width = image.shape[:2]
    side = side_for(phrase, height, width)
    away = np.abs(image.astype(np.int64) - background_colour(image)).sum(axis=-1) > 60
    row, column = place_for(phrase, side, np.asarray(away, dtype=np.bool_), rng)
    stamp(out, shape_mask(phrase.shape, side, side), row, column, colour)
    return out
