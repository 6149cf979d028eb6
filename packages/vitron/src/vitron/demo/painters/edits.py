# SPDX-License-Identifier: Apache-2.0
"""Edits of one image; a video is edited frame by frame."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from vitron.demo.painters.find import background_colour, choose, things_in
from vitron.demo.painters.shapes import (
    Mask,
    Pixels,
    colour_for,
    place_for,
    shape_mask,
    shifted,
    side_for,
    stamp,
)
from vitron.demo.painters.words import (
    COLOURS,
    colours_of,
    direction_of,
    pixels_of,
    quoted,
    read_phrase,
    words_of,
)
from vitron.errors import UnsupportedRequestError
from vitron.protocol.regions.raster import dilate
from vitron.specialists.protocol import Action

STYLES = ("grey", "sepia", "negative", "pixels", "blur", "poster", "night", "pencil")
_STYLE_WORDS = {
    "gray": "grey",
    "greyscale": "grey",
    "grayscale": "grey",
    "inverted": "negative",
    "pixelated": "pixels",
    "pixel": "pixels",
    "blurred": "blur",
    "poster": "poster",
    "posterised": "poster",
    "dark": "night",
    "sketch": "pencil",
    "drawing": "pencil",
}


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
    name = _guess(text) if name == "edit" else name
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


def _guess(text: str) -> str:
    words = words_of(text)
    verbs = {"remove": "remove", "delete": "remove", "erase": "remove", "add": "add", "move": "move"}
    verbs |= {"replace": "replace", "style": "restyle", "recolour": "recolour", "make": "recolour"}
    found = next((verbs[word] for word in words if word in verbs), None)
    if found == "recolour" and not colours_of(text):
        found = "restyle"
    return found or "restyle"


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
    top, left, bottom, right = _box(old)
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
        top, left, bottom, right = _box(mask)
        stamp(out, shape_mask(phrase.shape, bottom - top, right - left), top, left, colour)
        return out
    height, width = image.shape[:2]
    side = side_for(phrase, height, width)
    away = np.abs(image.astype(np.int64) - background_colour(image)).sum(axis=-1) > 60
    row, column = place_for(phrase, side, np.asarray(away, dtype=np.bool_), rng)
    stamp(out, shape_mask(phrase.shape, side, side), row, column, colour)
    return out


def _box(mask: Mask) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def restyle(image: Pixels, text: str, mask: Mask | None = None) -> Pixels:
    """Draw an image, or the masked part of it, in a style.

    Raises:
        UnsupportedRequestError: If the text names no style.
    """
    named = (_STYLE_WORDS.get(word, word) for word in words_of(text))
    style = next((word for word in named if word in STYLES), None)
    if style is None:
        raise UnsupportedRequestError(
            f"the toy painter knows the styles {', '.join(STYLES)}, got {quoted(text)}"
        )
    styled = _styled(Image.fromarray(image), style)
    return styled if mask is None else np.where(mask[..., None], styled, image)


def _styled(image: Image.Image, style: str) -> NDArray[np.uint8]:
    grey = ImageOps.grayscale(image)
    match style:
        case "grey":
            out = grey
        case "sepia":
            out = ImageOps.colorize(grey, (40, 24, 8), (255, 240, 200))
        case "negative":
            out = ImageOps.invert(image)
        case "pixels":
            small = (max(1, image.width // 8), max(1, image.height // 8))
            out = image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)
        case "blur":
            out = image.filter(ImageFilter.GaussianBlur(max(image.size) / 40))
        case "poster":
            out = ImageOps.posterize(image, 2)
        case "night":
            out = ImageOps.colorize(grey, (0, 0, 16), (110, 120, 170))
        case _:
            out = ImageOps.invert(grey.filter(ImageFilter.FIND_EDGES))
    return np.asarray(out.convert("RGB"), dtype=np.uint8)


def animate(image: Pixels, mask: Mask, way: tuple[int, int], length: int) -> NDArray[np.uint8]:
    """Move the masked object by a 16th of the side per frame; it turns back at the edges.

    Args:
        image: ``(H, W, 3)``.
        mask: ``(H, W)``, not empty.
        way: Direction in rows and columns, -1 to 1.
        length: Number of frames.

    Returns:
        ``(length, H, W, 3)``; the first is the image.
    """
    height, width = image.shape[:2]
    empty = fill_in(image, mask)
    top, left, bottom, right = _box(mask)
    cut, colours = mask[top:bottom, left:right], image[top:bottom, left:right]
    frames = [image]
    for index in range(1, length):
        row = _bounce(top, way[0] * index * max(1, height // 16), height - (bottom - top))
        column = _bounce(left, way[1] * index * max(1, width // 16), width - (right - left))
        frame = empty.copy()
        there = shifted(cut, row, column, (height, width))
        frame[there] = colours[cut]
        frames.append(frame)
    return np.stack(frames)


def _bounce(start: int, way: int, span: int) -> int:
    """Return a position between 0 and ``span`` on a line that is folded at its ends."""
    if span <= 0:
        return start
    place = (start + way) % (2 * span)
    return place if place <= span else 2 * span - place
