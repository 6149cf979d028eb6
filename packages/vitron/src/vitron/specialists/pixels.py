# SPDX-License-Identifier: Apache-2.0
"""Edits of pixels without a model: fill, recolour, move, restyle, animate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from vitron.errors import UnsupportedRequestError
from vitron.protocol.regions.raster import dilate
from vitron.specialists.words import quoted, words_of

__all__ = ["STYLES", "animate", "box_of", "fill", "fold", "move", "recolour", "restyle", "zoom"]

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

STYLES = ("grey", "sepia", "negative", "pixels", "blur", "poster", "night", "pencil")
_STYLE_WORDS = {
    "gray": "grey",
    "greyscale": "grey",
    "grayscale": "grey",
    "inverted": "negative",
    "pixelated": "pixels",
    "pixel": "pixels",
    "blurred": "blur",
    "posterised": "poster",
    "dark": "night",
    "sketch": "pencil",
    "drawing": "pencil",
}
_SEARCH = 160  # pixels of the longer side on which a source for a hole is searched
_RING = 4  # pixels around a hole, on that grid, that its source has to match
_USUAL = 2.5  # largest detail that is copied, over the median around the hole
_DETAIL = 40  # detail is finer than the longer side over this: the sigma of the filter
_UNLIKE = 1.0  # weight of how much a source differs from the surroundings of the hole
_SOLVED = 20_000  # most pixels of a hole that are solved for; larger ones on a coarser grid
_LUMA = np.array([0.299, 0.587, 0.114])


def fill(image: Pixels, mask: Mask) -> Pixels:
    """Fill a hole smoothly, with the fine detail of another part of the image.

    The smooth part is the harmonic function of the pixels around the hole, as in "Poisson image editing"
    (Pérez et al., SIGGRAPH 2003). The detail is that of the part whose surroundings fit those of the hole
    best and that resembles them; where there is none, the hole stays smooth.

    Args:
        image: ``(H, W, 3)``; not changed.
        mask: Hole, ``(H, W)``.
    """
    from scipy import ndimage  # slow to import and rarely needed

    if mask.all() or not mask.any():
        return image.copy()
    known, offset = image.astype(np.float64), _source(image, mask)
    filled = _harmonic_fill(known, mask)
    if offset is not None:
        width = max(2, round(max(mask.shape) / _DETAIL * 2.5))
        # two boxes are nearly a Gaussian, and take the same time at any width
        smooth = ndimage.uniform_filter(ndimage.uniform_filter(filled, (width, width, 1)), (width, width, 1))
        detail = filled - smooth  # without what is in the hole
        ring = dilate(mask, width) & ~mask
        usual = (
            float(np.median(np.abs(detail[ring]))) * _USUAL if ring.any() else 0.0
        )  # more is an edge, no texture
        rows, columns = np.nonzero(mask)
        rows, columns = rows + offset[0], columns + offset[1]
        copied = detail[rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1)]
        filled[mask] += copied.clip(-usual, usual)
    return np.where(mask[..., None], filled.round().clip(0, 255), image).astype(np.uint8)


def _source(image: Pixels, mask: Mask) -> tuple[int, int] | None:
    """Return rows and columns from a hole to the part of the image that fits it; ``None`` if none can."""
    from scipy import ndimage, signal  # slow to import and rarely needed

    height, width = mask.shape
    scale = min(1.0, _SEARCH / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)) / 255.0
    shrunk = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    hole = np.asarray(shrunk) > 0
    wide = np.asarray(ndimage.binary_dilation(hole, np.ones((3, 3)), iterations=_RING))
    ring = (wide & ~hole).astype(np.float64)
    if not ring.any():
        return None

    def over(values: Floats, part: Floats) -> Floats:
        return np.asarray(signal.correlate(values, part, method="fft"))

    inner, around = hole.astype(np.float64), ring.sum()
    misfit = np.zeros([2 * side - 1 for side in hole.shape])  # [d], of the part at the distance d
    for channel in np.moveaxis(small, -1, 0):
        mean = (ring * channel).sum() / around
        first = over(channel, ring) / around - mean
        second = over(channel**2, ring) - 2 * over(channel, ring * channel) + (ring * channel**2).sum()
        misfit += second / around - first**2  # variance of I(x + d) - I(x) over the ring
        # what differs from the surroundings is rather another object than a ground
        unlike = over((channel - mean) ** 2, inner) / inner.sum()
        misfit += _UNLIKE * unlike
    top, left, bottom, right = box_of(wide)
    down, across = (np.arange(1 - side, side) for side in hole.shape)
    inside = ((down >= -top) & (down + bottom <= hole.shape[0]))[:, None] & (
        (across >= -left) & (across + right <= hole.shape[1])
    )
    misfit[~inside | (over(inner, wide.astype(np.float64)) > 0.5)] = np.inf
    best = np.unravel_index(int(misfit.argmin()), misfit.shape)
    if not np.isfinite(misfit[best]):
        return None
    return round(int(down[best[0]]) * height / size[1]), round(int(across[best[1]]) * width / size[0])


def _harmonic_fill(values: Floats, mask: Mask) -> Floats:
    """Return values ``(H, W, C)`` with the harmonic function of their edge inside of a mask."""
    height, width = mask.shape
    step = int(np.ceil(np.sqrt(mask.sum() / _SOLVED)))
    if step == 1:
        return _harmonic(values, mask)
    size = max(1, width // step), max(1, height // step)
    outside = (~mask).astype(np.float64)[..., None]
    weight = _resized(outside, size)
    hole = weight[..., 0] < min(0.5, weight.max())  # something is known, however large the hole
    solved = _harmonic(_resized(values * outside, size) / np.maximum(weight, 1e-6), hole)
    return np.where(mask[..., None], _resized(solved, (width, height)), values)


def _resized(values: Floats, size: tuple[int, int]) -> Floats:
    """Return values ``(H, W, C)`` at a width and height."""
    how = Image.Resampling.BILINEAR if size[0] > values.shape[1] else Image.Resampling.BOX
    channels = np.moveaxis(values.astype(np.float32), -1, 0)
    return np.stack([np.asarray(Image.fromarray(each).resize(size, how)) for each in channels], -1) * 1.0


def _harmonic(values: Floats, mask: Mask) -> Floats:
    """Solve Laplace's equation inside of a mask; the edges of the image let nothing through."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    number = np.full(mask.shape, -1)
    count = int(mask.sum())
    number[mask] = np.arange(count)
    rows, columns = np.nonzero(mask)
    degree, known = np.zeros(count), np.zeros((count, values.shape[-1]))
    ends = list[tuple[NDArray[np.int64], NDArray[np.int64]]]()
    for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
        to_rows, to_columns = rows + down, columns + right
        there = (to_rows >= 0) & (to_rows < mask.shape[0]) & (to_columns >= 0) & (to_columns < mask.shape[1])
        own, to = np.flatnonzero(there), (to_rows[there], to_columns[there])
        degree[own] += 1
        solved = mask[to]
        known[own[~solved]] += values[to][~solved]
        ends.append((own[solved], number[to][solved]))
    one, other = (np.concatenate(each) for each in zip(*ends, strict=True))
    links: Any = sparse.coo_matrix((np.ones(one.size), (one, other)), shape=(count, count))
    # the small term keeps a part that touches no known pixel from being singular
    system: Any = (sparse.diags(degree + 1e-9) - links).tocsc()
    out = values.copy()
    out[mask] = splu(system).solve(known)
    return out


def recolour(image: Pixels, mask: Mask, colour: tuple[int, int, int]) -> Pixels:
    """Give the masked part one colour; its shading is kept.

    Args:
        image: ``(H, W, 3)``.
        mask: ``(H, W)``.
        colour: RGB, mean of the part afterwards.
    """
    if not mask.any():
        return image.copy()
    light = image @ _LUMA
    shaded = np.asarray(colour) + (light - light[mask].mean())[..., None]
    return _blend(image, shaded.clip(0, 255), mask)


def move(image: Pixels, mask: Mask, down: int, right: int, hole: Mask) -> Pixels:
    """Move the masked part; what it leaves is filled.

    Args:
        image: ``(H, W, 3)``.
        mask: ``(H, W)``.
        down: Rows to move it by.
        right: Columns to move it by.
        hole: What is filled, ``(H, W)``: the mask, and a margin.
    """
    size = mask.shape
    rows, columns = np.nonzero(mask)
    to_rows, to_columns = rows + down, columns + right
    inside = (to_rows >= 0) & (to_rows < size[0]) & (to_columns >= 0) & (to_columns < size[1])
    there, moved = np.zeros_like(mask), image.copy()
    there[to_rows[inside], to_columns[inside]] = True
    moved[to_rows[inside], to_columns[inside]] = image[rows[inside], columns[inside]]
    return _blend(fill(image, hole), moved.astype(np.float64), there, grow=False)


def _blend(image: Pixels, other: Floats, mask: Mask, *, grow: bool = True) -> Pixels:
    """Put the masked part of another image into an image, with an edge of one pixel."""
    soft = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(1))) / 255.0
    share = (soft if grow else soft * mask)[..., None]
    return (share * other + (1 - share) * image).round().astype(np.uint8)


def restyle(image: Pixels, text: str, mask: Mask | None = None) -> Pixels:
    """Draw an image, or the masked part of it, in a style.

    Raises:
        UnsupportedRequestError: If the text names none of :data:`STYLES`.
    """
    named = (_STYLE_WORDS.get(word, word) for word in words_of(text))
    style = next((word for word in named if word in STYLES), None)
    if style is None:
        raise UnsupportedRequestError(f"the known styles are {', '.join(STYLES)}, got {quoted(text)}")
    styled = _styled(Image.fromarray(image), style)
    return styled if mask is None else np.where(mask[..., None], styled, image)


def _styled(image: Image.Image, style: str) -> Pixels:
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


def animate(image: Pixels, empty: Pixels, mask: Mask, way: tuple[int, int], length: int) -> Pixels:
    """Move the masked object by a 16th of the side per frame; it turns back at the edges.

    Args:
        image: ``(H, W, 3)``.
        empty: The image without the object.
        mask: ``(H, W)``, not empty.
        way: Direction in rows and columns, -1 to 1.
        length: Number of frames.

    Returns:
        ``(length, H, W, 3)``; the first is the image.
    """
    height, width = image.shape[:2]
    top, left, bottom, right = box_of(mask)
    cut, colours = mask[top:bottom, left:right], image[top:bottom, left:right]
    frames = [image]
    for index in range(1, length):
        row = fold(top, way[0] * index * max(1, height // 16), height - (bottom - top))
        column = fold(left, way[1] * index * max(1, width // 16), width - (right - left))
        frame = empty.copy()
        frame[row : row + cut.shape[0], column : column + cut.shape[1]][cut] = colours[cut]
        frames.append(frame)
    return np.stack(frames)


def zoom(image: Pixels, *, out: bool, length: int) -> Pixels:
    """Zoom into the middle of an image, to two thirds of its side, or out of it: ``(length, H, W, 3)``."""
    whole = Image.fromarray(image)
    shares = np.linspace(1, 2 / 3, length)
    frames = list[Pixels]()
    for share in shares[::-1] if out else shares:
        width, height = whole.width * float(share), whole.height * float(share)
        left, top = (whole.width - width) / 2, (whole.height - height) / 2
        box = (left, top, left + width, top + height)
        frames.append(np.asarray(whole.resize(whole.size, Image.Resampling.BICUBIC, box=box)))
    return np.stack(frames)


def box_of(mask: Mask) -> tuple[int, int, int, int]:
    """Return top, left, bottom and right of a mask that is not empty; the last two are not included."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def fold(start: int, way: int, span: int) -> int:
    """Return a position between 0 and ``span`` on a line that is folded at its ends."""
    if span <= 0:
        return start
    place = (start + way) % (2 * span)
    return place if place <= span else 2 * span - place
