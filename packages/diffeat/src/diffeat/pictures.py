# SPDX-License-Identifier: Apache-2.0
"""Drawings of features: principal components, clusters, similarities, label maps, matches."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from common_kernels.runtime.pictures import (
    BACKGROUND,
    LegendEntry,
    Panel,
    add_legend,
    comparison,
    distinct_colours,
    enlarge_or_reduce,
    stack,
)
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from diffeat.match import similarity_map

Kind = Literal["pca", "clusters", "similarity"]

_GAP = 12
_UNLABELLED = 128  # grey of pixels without a class
_RIGHT, _WRONG, _MARK = (70, 200, 110), (230, 70, 70), (255, 60, 200)


def draw_components(features: Sequence[Tensor], *, skip: int = 0, seed: int = 0) -> list[Image.Image]:
    """Draw the three strongest principal components as red, green and blue.

    The components are those of all images together, so that the same colour means the same feature.

    Args:
        features: ``(C, h, w)`` of each image; sides may differ.
        skip: Number of first components to skip; the first often separates object and background.
        seed: Random seed of the solver.

    Returns:
        An image of ``w`` times ``h`` pixels for each image.

    Raises:
        ValueError: If channels differ.
    """
    from sklearn.decomposition import PCA

    vectors = _vectors(features)
    count = min(skip + 3, vectors.shape[1], len(vectors))
    components = PCA(count, svd_solver="randomized", random_state=seed).fit_transform(vectors)[:, skip:]
    padded = np.zeros((len(vectors), 3))
    padded[:, : components.shape[1]] = components
    # the far tails would make the rest grey
    low, high = np.percentile(padded, (1, 99), axis=0)
    scaled = np.clip((padded - low) / np.maximum(high - low, 1e-12), 0, 1)
    return [Image.fromarray((255 * part).round().astype(np.uint8)) for part in _split(scaled, features)]


def cluster_maps(features: Sequence[Tensor], count: int, *, seed: int = 0) -> list[NDArray[np.int64]]:
    """Group cells by k-means over all images together.

    Args:
        features: ``(C, h, w)`` of each image.
        count: Number of clusters.
        seed: Random seed of the start.

    Returns:
        ``(h, w)`` cluster numbers of each image, by descending size of the clusters.

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


def draw_clusters(features: Sequence[Tensor], count: int, *, seed: int = 0) -> list[Image.Image]:
    """Draw the groups of :func:`cluster_maps`, a colour for each."""
    colours = distinct_colours(count)
    return [Image.fromarray(colours[labels]) for labels in cluster_maps(features, count, seed=seed)]


def draw_heat(values: Tensor, *, low: float | None = None, high: float | None = None) -> Image.Image:
    """Draw a map from dark blue over green to yellow.

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


def label_image(labels: Tensor, num_classes: int) -> Image.Image:
    """Class numbers ``(h, w)`` as an image with a palette; pixels are the numbers, 255 is grey."""
    image = Image.fromarray(labels.to(torch.uint8).cpu().numpy(), mode="P")
    table = np.full((256, 3), _UNLABELLED, np.uint8)
    table[:num_classes] = distinct_colours(num_classes)
    image.putpalette(table.tobytes())
    return image


def add_class_legend(image: Image.Image, labels: Tensor, classes: Sequence[str]) -> Image.Image:
    """Name the classes of :func:`label_image` below an image; absent classes are omitted."""
    colours = [(red, green, blue) for red, green, blue in distinct_colours(len(classes)).tolist()]
    present = [number for number in map(int, labels.unique()) if number < len(classes)]
    return add_legend(image, [LegendEntry(classes[number], colours[number]) for number in present])


def draw_values(
    kind: Kind,
    values: Sequence[Tensor],
    *,
    skip: int = 0,
    clusters: int = 6,
    point: tuple[float, float] = (0.5, 0.5),
) -> tuple[list[Image.Image], str]:
    """Draw an activation of several images, in colours that are comparable.

    Args:
        kind: Principal components, clusters, or similarities to a point of the first image.
        values: ``(C, h, w)`` of each image.
        skip: Number of principal components to skip.
        clusters: Number of groups of k-means.
        point: ``(x, y)`` in shares of width and height.

    Returns:
        A small drawing of each image, and what they show in words.
    """
    if kind == "pca":
        return draw_components(values, skip=skip), f"principal components {skip + 1} to {skip + 3}"
    if kind == "clusters":
        return draw_clusters(values, clusters), f"{clusters} clusters"
    maps = [similarity_map(values[0], value, point) for value in values]
    low, high = min(float(each.min()) for each in maps), max(float(each.max()) for each in maps)
    # dark blue is the minimum, yellow the maximum
    heat = [draw_heat(each, low=low, high=high) for each in maps]
    return heat, f"cosine {low:.2f} to {high:.2f}"


def overlay(image: Image.Image, drawing: Image.Image, *, opacity: float = 0.6) -> Image.Image:
    """Blend a small drawing over an image.

    Args:
        image: The image.
        drawing: Drawing, enlarged to the image without interpolation.
        opacity: Opacity of the drawing, in [0, 1].
    """
    large = drawing.convert("RGB").resize(image.size, Image.Resampling.NEAREST)
    return Image.blend(image.convert("RGB"), large, opacity)


def draw_overlays(
    images: Sequence[Image.Image],
    drawings: Sequence[Image.Image],
    names: Sequence[str],
    *,
    caption: str,
    title: str,
) -> Image.Image:
    """Draw each image beside its drawing and the drawing over the image, a row per image.

    Args:
        images: Images, at least one.
        drawings: Small drawing of each.
        names: Text above each image.
        caption: Text above each drawing.
        title: Text above all.
    """
    rows: list[Image.Image] = []
    for image, drawing, name in zip(images, drawings, names, strict=True):
        panels = [
            Panel(name, "", image),
            Panel(caption, "", overlay(image, drawing, opacity=1.0)),
            Panel("overlay", "", overlay(image, drawing)),
        ]
        rows.append(comparison(panels, height=320))
    return stack(rows, title=title)


def mark_point(image: Image.Image, point: tuple[float, float]) -> Image.Image:
    """Mark a point.

    Args:
        image: The image.
        point: ``(x, y)`` in shares of width and height.
    """
    shown = image.convert("RGB")
    x, y = point[0] * shown.width, point[1] * shown.height
    radius = max(2.0, min(shown.size) / 50)
    box = (x - radius, y - radius, x + radius, y + radius)
    ImageDraw.Draw(shown).ellipse(box, fill=_MARK, outline=(0, 0, 0), width=max(1, round(radius / 4)))
    return shown


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
        target_points: ``(N, 2)``, in the same units.
        is_right: ``(N,)``; lines are green if it is true, else red. A colour for each if ``None``.
        height: Height of the images in the drawing, in pixels.

    Raises:
        ValueError: If numbers of points differ.
    """
    if source_points.shape != target_points.shape:
        raise ValueError(
            f"there must be as many points on both sides, got {len(source_points)} and {len(target_points)}"
        )
    widths = [max(1, round(each.width * height / each.height)) for each in (source, target)]
    lefts = [_GAP, 2 * _GAP + widths[0]]
    sheet = Image.new("RGB", (sum(widths) + 3 * _GAP, height + 2 * _GAP), BACKGROUND)
    for image, left, width in zip((source, target), lefts, widths, strict=True):
        sheet.paste(enlarge_or_reduce(image, (width, height)), (left, _GAP))
    draw = ImageDraw.Draw(sheet)
    ends = [
        [(left + float(x) * width, _GAP + float(y) * height) for x, y in points]
        for left, width, points in zip(lefts, widths, (source_points, target_points), strict=True)
    ]
    for number, (start, end) in enumerate(zip(*ends, strict=True)):
        # steps of the golden section: neighbours in a grid get distant colours
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
