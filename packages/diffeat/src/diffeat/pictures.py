# SPDX-License-Identifier: Apache-2.0
"""Features as pictures: principal components, clusters, similarities, matches."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_GAP = 12
_NARROWEST = 240  # width of what has a legend
_BACKGROUND = (18, 18, 20)
_INK = (235, 235, 235)
_RIGHT, _WRONG, _MARK = (70, 200, 110), (230, 70, 70), (255, 60, 200)


def to_picture(image: Tensor) -> Image.Image:
    """An RGB tensor ``(3, H, W)`` in [0, 1] as a picture."""
    pixels = (image.clamp(0, 1) * 255).round().byte().movedim(0, -1).cpu().numpy()
    return Image.fromarray(pixels)


def pca_pictures(features: Sequence[Tensor], *, skip: int = 0, seed: int = 0) -> list[Image.Image]:
    """Show the three strongest principal components as red, green and blue.

    The components are those of all images together, so that the same colour means the same feature.

    Args:
        features: ``(C, h, w)`` of each image; sides may differ.
        skip: Components left out at the start; the first often tells object from ground.
        seed: Of the solver.

    Returns:
        A picture of ``w`` times ``h`` pixels for each image.

    Raises:
        ValueError: If channels differ.
    """
    from sklearn.decomposition import PCA

    vectors = _vectors(features)
    count = min(skip + 3, vectors.shape[1], len(vectors))
    components = PCA(count, svd_solver="randomized", random_state=seed).fit_transform(vectors)[:, skip:]
    padded = np.zeros((len(vectors), 3))
    padded[:, : components.shape[1]] = components
    # the far tails would leave the rest grey
    low, high = np.percentile(padded, (1, 99), axis=0)
    scaled = np.clip((padded - low) / np.maximum(high - low, 1e-12), 0, 1)
    return [Image.fromarray((255 * part).round().astype(np.uint8)) for part in _split(scaled, features)]


def cluster_maps(features: Sequence[Tensor], count: int, *, seed: int = 0) -> list[NDArray[np.int64]]:
    """Group cells by k-means over all images together.

    Args:
        features: ``(C, h, w)`` of each image.
        count: Clusters.
        seed: Of the start.

    Returns:
        ``(h, w)`` cluster numbers of each image, by falling size of the clusters.

    Raises:
        ValueError: If channels differ, or there are fewer cells than clusters.
    """
    from sklearn.cluster import MiniBatchKMeans

    vectors = _vectors(features)
    if not 1 <= count <= len(vectors):
        raise ValueError(f"count must lie between 1 and the {len(vectors)} cells, got {count}")
    labels = cast("Any", MiniBatchKMeans)(count, random_state=seed, n_init=3).fit_predict(vectors)
    order = np.argsort(-np.bincount(labels, minlength=count), kind="stable")
    ranks = np.empty(count, np.int64)
    ranks[order] = np.arange(count)
    return _split(ranks[labels], features)


def cluster_pictures(features: Sequence[Tensor], count: int, *, seed: int = 0) -> list[Image.Image]:
    """Colour the groups of :func:`cluster_maps`."""
    palette = _palette(count)
    return [Image.fromarray(palette[labels]) for labels in cluster_maps(features, count, seed=seed)]


def heat_picture(values: Tensor, *, low: float | None = None, high: float | None = None) -> Image.Image:
    """Show a map from dark blue over green to yellow.

    Args:
        values: ``(h, w)``.
        low: Value of the darkest colour; the least if ``None``.
        high: Value of the brightest; the largest if ``None``.
    """
    least, most = float(values.min()), float(values.max())
    low, high = least if low is None else low, most if high is None else high
    share = ((values.double() - low) / max(high - low, 1e-12)).clamp(0, 1).cpu().numpy()
    stops = np.array([(0.05, 0.03, 0.30), (0.13, 0.40, 0.55), (0.25, 0.72, 0.42), (0.99, 0.91, 0.20)])
    at = np.linspace(0, 1, len(stops))
    pixels = np.stack([np.interp(share, at, stops[:, channel]) for channel in range(3)], axis=-1)
    return Image.fromarray((255 * pixels).round().astype(np.uint8))


def overlay(image: Image.Image, picture: Image.Image, *, opacity: float = 0.6) -> Image.Image:
    """Lay a small picture over an image.

    Args:
        image: The image.
        picture: Enlarged to its size without interpolation.
        opacity: Of the picture, in [0, 1].
    """
    large = picture.resize(image.size, Image.Resampling.NEAREST).convert("RGB")
    return Image.blend(image.convert("RGB"), large, opacity)


def titled(picture: Image.Image, text: str, *, indent: int = 0, size: int = 14) -> Image.Image:
    """Put a line of text above a picture.

    Args:
        picture: The picture.
        text: What does not fit is cut.
        indent: Pixels left of the text.
        size: Of the letters, in pixels.
    """
    band = size + 8
    sheet = Image.new("RGB", (picture.width, picture.height + band), _BACKGROUND)
    sheet.paste(picture, (0, band))
    font = ImageFont.load_default(size)
    shown = _fitting(text, font, picture.width - indent)
    ImageDraw.Draw(sheet).text((indent, 2), shown, fill=_INK, font=font)
    return sheet


def with_legend(picture: Image.Image, labels: Tensor, classes: Sequence[str]) -> Image.Image:
    """Name the classes of :func:`label_picture` below a picture.

    Args:
        picture: The picture; a narrow one gets paper beside it.
        labels: Class numbers ``(h, w)``; classes that do not occur are left out.
        classes: Names of all classes; what does not fit is cut.
    """
    size = max(14, max(picture.size) // 40)  # of the letters
    font, palette = ImageFont.load_default(size), _palette(len(classes))
    width = max(picture.width, _NARROWEST)
    places: list[tuple[int, int, int, str]] = []  # left and top of a line, its class and name
    left, top = _GAP, picture.height + _GAP
    for number in map(int, labels.unique()):
        if number >= len(classes):
            continue  # pixels of no class
        name = _fitting(classes[number], font, width - 2 * _GAP - 2 * size)
        needed = 2 * size + math.ceil(font.getlength(name))
        if left > _GAP and left + needed + _GAP > width:
            left, top = _GAP, top + size + size // 2
        places.append((left, top, number, name))
        left += needed + _GAP
    sheet = Image.new("RGB", (width, top + size + _GAP), _BACKGROUND)
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for left, top, number, name in places:
        red, green, blue = palette[number].tolist()
        draw.rectangle((left, top, left + size, top + size), fill=(red, green, blue))
        draw.text((left + 2 * size, top + size / 2), name, fill=_INK, font=font, anchor="lm")
    return sheet


def _fitting(text: str, font: Any, width: float) -> str:
    """The text, cut to a width in pixels."""
    while len(text) > 3 and font.getlength(text) > width:
        text = text.removesuffix("...")[:-1] + "..."
    return text


def marked(picture: Image.Image, place: tuple[float, float]) -> Image.Image:
    """Mark a place.

    Args:
        picture: The picture.
        place: ``(x, y)`` in shares of width and height.
    """
    shown = picture.convert("RGB")
    x, y = place[0] * shown.width, place[1] * shown.height
    radius = max(2.0, min(shown.size) / 50)
    box = (x - radius, y - radius, x + radius, y + radius)
    ImageDraw.Draw(shown).ellipse(box, fill=_MARK, outline=(0, 0, 0), width=max(1, round(radius / 4)))
    return shown


def side_by_side(
    pictures: Sequence[Image.Image], *, height: int = 320, captions: Sequence[str] = ()
) -> Image.Image:
    """Lay pictures in a row, brought to one height without interpolation.

    Args:
        pictures: At least one.
        height: Of each, in pixels.
        captions: Above each; none if empty.
    """
    shown = [
        each.convert("RGB").resize(
            (max(1, round(each.width * height / each.height)), height),
            Image.Resampling.NEAREST if each.height < height else Image.Resampling.LANCZOS,
        )
        for each in pictures
    ]
    if captions:
        shown = [titled(each, text) for each, text in zip(shown, captions, strict=True)]
        height = shown[0].height
    width = sum(each.width for each in shown) + _GAP * (len(shown) + 1)
    sheet = Image.new("RGB", (width, height + 2 * _GAP), _BACKGROUND)
    left = _GAP
    for each in shown:
        sheet.paste(each, (left, _GAP))
        left += each.width + _GAP
    return sheet


def stacked(pictures: Sequence[Image.Image], *, title: str = "") -> Image.Image:
    """Lay pictures below each other.

    Args:
        pictures: At least one.
        title: Above all of them; none if empty.
    """
    width = max(each.width for each in pictures)
    sheet = Image.new("RGB", (width, sum(each.height for each in pictures)), _BACKGROUND)
    top = 0
    for each in pictures:
        sheet.paste(each, (0, top))
        top += each.height
    return titled(sheet, title, indent=_GAP, size=17) if title else sheet


def label_picture(labels: Tensor, count: int) -> Image.Image:
    """Colour class numbers ``(h, w)``, of ``count`` classes; 255 stays grey."""
    return palette_picture(labels, count).convert("RGB")


def palette_picture(labels: Tensor, count: int) -> Image.Image:
    """Class numbers ``(h, w)`` as a picture whose pixels are these numbers and which has colours for them."""
    picture = Image.fromarray(labels.to(torch.uint8).cpu().numpy(), mode="P")
    colours = _palette(count)
    table = np.full((256, 3), 128, np.uint8)
    table[: len(colours)] = colours
    picture.putpalette(table.tobytes())
    return picture


def _palette(count: int) -> NDArray[np.uint8]:
    return np.array(
        [[round(255 * c) for c in colorsys.hsv_to_rgb(i / count, 0.65, 0.95)] for i in range(count)], np.uint8
    )


def name_files(paths: Sequence[Path]) -> list[str]:
    """A file name without ending for each path, told apart by a number where names repeat."""
    seen: dict[str, int] = {}
    found: list[str] = []
    for path in paths:
        number = seen[path.stem] = seen.get(path.stem, 0) + 1
        found.append(path.stem if number == 1 else f"{path.stem}-{number}")
    return found


def draw_matches(
    source: Image.Image,
    target: Image.Image,
    source_points: Tensor,
    target_points: Tensor,
    *,
    is_right: Tensor | None = None,
    height: int = 420,
) -> Image.Image:
    """Draw both images side by side with a line for each match.

    Args:
        source: Left image.
        target: Right image.
        source_points: ``(N, 2)``, ``(x, y)`` in shares of width and height.
        target_points: ``(N, 2)``, likewise.
        is_right: ``(N,)``; lines are green where it holds and red elsewhere. A colour for each if ``None``.
        height: Of the images in the drawing, in pixels.

    Raises:
        ValueError: If numbers of points differ.
    """
    if source_points.shape != target_points.shape:
        raise ValueError(
            f"there must be as many points on both sides, got {len(source_points)} and {len(target_points)}"
        )
    sheet = side_by_side([source, target], height=height)
    draw = ImageDraw.Draw(sheet)
    widths = [max(1, round(each.width * height / each.height)) for each in (source, target)]
    lefts = [_GAP, 2 * _GAP + widths[0]]
    ends = [
        [(left + float(x) * width, _GAP + float(y) * height) for x, y in points]
        for left, width, points in zip(lefts, widths, (source_points, target_points), strict=True)
    ]
    for number, (start, end) in enumerate(zip(*ends, strict=True)):
        # steps of the golden section: neighbours in a grid get colours that are far apart
        hue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.8, 1.0)
        colour = (round(255 * hue[0]), round(255 * hue[1]), round(255 * hue[2]))
        if is_right is not None:
            colour = _RIGHT if bool(is_right[number]) else _WRONG
        draw.line((start, end), fill=colour, width=2)
        for x, y in (start, end):
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour, outline=(255, 255, 255))
    return sheet


def _vectors(features: Sequence[Tensor]) -> NDArray[np.float64]:
    channels = {value.shape[0] for value in features}
    if len(channels) != 1 or any(value.ndim != 3 for value in features):
        shapes = ", ".join(str(tuple(value.shape)) for value in features)
        raise ValueError(f"features must be (C, h, w) with the same channels, got {shapes or 'none'}")
    return torch.cat([value.flatten(1).T for value in features]).double().cpu().numpy()


def _split(rows: NDArray[np.generic], features: Sequence[Tensor]) -> list[NDArray[np.int64]]:
    ends = np.cumsum([value.shape[1] * value.shape[2] for value in features])[:-1]
    parts = np.split(rows, ends)
    shaped = [
        part.reshape(value.shape[1], value.shape[2], *part.shape[1:])
        for part, value in zip(parts, features, strict=True)
    ]
    return cast("list[NDArray[np.int64]]", shaped)
