# SPDX-License-Identifier: Apache-2.0
"""Semantic correspondence as a benchmark: pairs of images with points, and the share of points found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch
from common_kernels.runtime.images import ImageError, read_size
from torch import Tensor
from torch.nn import functional as F

from diffeat.match import SoftArgmax, hits, nearest
from diffeat.names.grammar import Names
from diffeat.options import ExtractionOptions

if TYPE_CHECKING:
    from diffeat.extractor import FeatureExtractor
    from diffeat.heads import AggregationHead

_Item = TypeVar("_Item")
Split = Literal["trn", "val", "test"]
Against = Literal["image", "box"]
# pairs of each split of SPair-71k, to detect a partial copy
SPAIR_PAIRS = {"trn": 53_340, "val": 5_384, "test": 12_234}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two images of the same category, with corresponding points.

    Attributes:
        name: Name of the pair.
        category: Category of both images.
        source: Image with known points.
        target: Image to search.
        source_points: ``(N, 2)``, ``(x, y)`` in pixels of the source.
        target_points: ``(N, 2)`` in pixels of the target.
        source_size: Width and height in pixels.
        target_size: Width and height in pixels.
        target_box: ``(left, top, right, bottom)`` around the object in the target.
    """

    name: str
    category: str
    source: Path
    target: Path
    source_points: Tensor
    target_points: Tensor
    source_size: tuple[int, int]
    target_size: tuple[int, int]
    target_box: tuple[float, float, float, float]


def read_spair(root: str | Path, split: Split = "test") -> list[Pair]:
    """Read SPair-71k in its published layout: ``PairAnnotation/<split>/*.json`` and ``JPEGImages``.

    The full test split has 12,234 pairs. Published figures refer to it unless stated otherwise; see
    :func:`read_pair_list` for figures on fewer pairs.

    Args:
        root: Folder of the data set.
        split: ``"trn"``, ``"val"`` or ``"test"``.

    Raises:
        FileNotFoundError: If the folder is not SPair-71k.
        ValueError: If an annotation is damaged, naming the file.

    Source: arXiv 1908.10543.
    """
    if split not in SPAIR_PAIRS:
        raise ValueError(f"split must be 'trn', 'val' or 'test', got {split!r}")
    folder = Path(root) / "PairAnnotation" / split
    files = sorted(folder.glob("*.json"))
    if not files:
        raise FileNotFoundError(f"{root} is not SPair-71k: {folder} holds no annotations")
    images = Path(root) / "JPEGImages"
    return [_spair_pair(file, images) for file in files]


def _spair_pair(file: Path, images: Path) -> Pair:
    try:
        content = json.loads(file.read_text("utf-8"))
        category = content["category"]
        return Pair(
            name=file.stem,
            category=category,
            source=images / category / content["src_imname"],
            target=images / category / content["trg_imname"],
            source_points=_points(content["src_kps"]),
            target_points=_points(content["trg_kps"]),
            source_size=_size(content["src_imsize"]),
            target_size=_size(content["trg_imsize"]),
            target_box=_box(content["trg_bndbox"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{file} is not an annotation of SPair-71k: {error}") from error


def read_pair_list(
    file: str | Path, images: str | Path, *, on_error: Callable[[str, Exception], None] | None = None
) -> list[Pair]:
    """Read the list of pairs that the authors' script evaluates on.

    It is one JSON file of 360 pairs, 20 of each category of SPair-71k, taken over from Diffusion
    Hyperfeatures. The script validates on it during training and reports the largest figure of each
    metric separately, so its figures are not comparable with those on the full test split.

    Args:
        file: The list.
        images: Folder to which its paths are relative.
        on_error: Called with the number of each pair of which an image is missing, and why; such pairs are
            left out. If ``None`` the first of them ends the reading.

    Raises:
        ValueError: If the file is something else, or an image is missing.

    Source: authors' code. It takes the corner of the best cell as position, this package the centre unless
        :func:`predict_points` rounds: at 512 cells a difference of half a cell, a thousandth of the side.
    """
    try:
        content: Any = json.loads(Path(file).read_text("utf-8"))
        if not isinstance(content, list) or not all(isinstance(each, dict) for each in cast("Any", content)):
            raise ValueError('it must read [{"source_path": ..., "target_path": ..., ...}, ...]')
        found: list[Pair] = []
        for number, each in enumerate(cast("Any", content)):
            try:
                found.append(_listed_pair(number, each, Path(images)))
            except (ImageError, OSError) as error:
                if on_error is None:
                    raise
                on_error(str(number), error)
        return found
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{file} is not a list of pairs: {error}") from error


def _listed_pair(number: int, content: dict[str, Any], images: Path) -> Pair:
    return Pair(
        name=str(number),
        category=str(content.get("category", "")),
        source=images / content["source_path"],
        target=images / content["target_path"],
        source_points=_points(content["source_points"]),
        target_points=_points(content["target_points"]),
        source_size=_size(read_size(images / content["source_path"])[::-1]),
        target_size=_size(read_size(images / content["target_path"])[::-1]),
        target_box=_box(content["target_bounding_box"]),
    )


def _points(values: Any) -> Tensor:
    points = torch.tensor(values, dtype=torch.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points must be (N, 2), got {tuple(points.shape)}")
    return points


def _size(values: Sequence[Any]) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def _box(values: Sequence[Any]) -> tuple[float, float, float, float]:
    return float(values[0]), float(values[1]), float(values[2]), float(values[3])


@dataclass(frozen=True, slots=True, kw_only=True)
class PCK:
    """Shares of points found.

    Attributes:
        per_point: Share of all points; the figure of the paper.
        per_image: Mean over pairs of each pair's share.
        by_category: Share of points of each category.
        pairs: Number of scored pairs.
        points: Number of scored points.
        threshold: Largest distance of a hit, in larger sides.
        against: Reference of distances, the sides of the ``"image"`` or of the ``"box"``.
    """

    per_point: float
    per_image: float
    by_category: dict[str, float]
    pairs: int
    points: int
    threshold: float
    against: Against


def pck(
    pairs: Iterable[Pair], predicted: Iterable[Tensor], *, threshold: float = 0.1, against: Against = "box"
) -> PCK:
    """Score predicted points.

    Args:
        pairs: The pairs.
        predicted: ``(N, 2)`` in pixels of the target, for each pair.
        threshold: Largest distance of a hit, in larger sides; a point at that distance is a hit.
        against: Sides of the target ``"image"`` or of the ``"box"`` around the object in it.

    Raises:
        ValueError: If numbers of points differ, or there are none.
    """
    if against not in {"image", "box"}:
        raise ValueError(f"against must be 'image' or 'box', got {against!r}")
    found: dict[str, list[Tensor]] = {}
    shares: list[float] = []
    for pair, points in zip(pairs, predicted, strict=True):
        if points.shape != pair.target_points.shape:
            raise ValueError(
                f"pair {pair.name} has {len(pair.target_points)} points, got {len(points)} predictions"
            )
        if len(points) == 0:
            continue
        left, top, right, bottom = pair.target_box
        side = max(pair.target_size) if against == "image" else max(right - left, bottom - top)
        right_ones = hits(points.cpu(), pair.target_points, threshold * side)
        found.setdefault(pair.category, []).append(right_ones)
        shares.append(float(right_ones.double().mean()))
    if not shares:
        raise ValueError("there must be at least one pair with points, got none")
    joined = {category: torch.cat(each) for category, each in sorted(found.items())}
    every = torch.cat(list(joined.values()))
    return PCK(
        per_point=float(every.double().mean()),
        per_image=fmean(shares),
        by_category={category: float(each.double().mean()) for category, each in joined.items()},
        pairs=len(shares),
        points=len(every),
        threshold=threshold,
        against=against,
    )


def predict_points(
    pair: Pair,
    source: Tensor,
    target: Tensor,
    *,
    side: int | None = 512,
    head: Callable[[Tensor], Tensor] | None = None,
    soft: SoftArgmax | None = None,
    is_rounded: bool = False,
) -> Tensor:
    """Predict the points of a pair by nearest neighbours.

    Args:
        pair: The pair.
        source: Features ``(C, h, w)`` of the whole source image, resized to a square or not.
        target: Features ``(C, h, w)`` of the target image.
        side: Cells to which the target is resized, as in the authors' evaluation; ``None`` keeps its size.
            The source is read bilinearly at its points, which is the same as reading it enlarged.
        head: Function applied to ``(1, C, h, w)`` first, such as a trained projection.
        soft: Refinement of the cells found.
        is_rounded: Whether to round as the authors' code: a source point to the next whole cell, and a cell
            found to its corner. Needs ``side``.

    Returns:
        ``(N, 2)`` in pixels of the target.

    Raises:
        ValueError: If rounding has no side.

    Source: arXiv 2410.03558, App. B; authors' code.
    """
    if is_rounded and side is None:
        raise ValueError("rounding needs the side of the grid on which points are rounded")
    maps = [source[None], target[None]]
    if head is not None:
        maps = [head(each) for each in maps]
    start = pair.source_points / torch.tensor(pair.source_size)
    if side is not None:
        maps[1] = F.interpolate(maps[1].float(), (side, side), mode="bilinear", align_corners=False)
    if is_rounded and side is not None:
        start = ((start * side).round().clamp(0, side - 1) + 0.5) / side
    places, _ = nearest(maps[0][0], maps[1][0], start, soft=soft)
    if is_rounded and side is not None:
        places = places - 0.5 / side
    return places.cpu() * torch.tensor(pair.target_size)


def of_category(options: ExtractionOptions, category: str) -> ExtractionOptions:
    """Return options whose prompt names a category in the place of ``{category}``."""
    (prompt,) = options.prompts(1)
    return replace(options, prompt=prompt.replace("{category}", category))


def spread(items: Sequence[_Item], count: int | None) -> Sequence[_Item]:
    """Return so many items, evenly spread over all; all of them if ``count`` is ``None`` or larger."""
    if count is None or count >= len(items):
        return items
    return [items[i * len(items) // count] for i in range(count)]


def pair_features(
    extractor: FeatureExtractor,
    names: Names,
    options: ExtractionOptions,
    *,
    head: AggregationHead | None = None,
    keep: int = 64,
) -> Callable[[Path, str], Tensor]:
    """Features of the images of pairs, with a cache of the latest ones.

    Args:
        extractor: The model.
        names: Names, globs or presets.
        options: Options of the extraction; ``{category}`` in the prompt is replaced by the category.
        head: Trained head that aggregates the activations; they are concatenated if ``None``.
        keep: Number of images whose features are held in memory.

    Returns:
        Function from the path of an image and its category to features ``(C, h, w)``.
    """

    @lru_cache(keep)
    def features(path: Path, category: str) -> Tensor:
        found = extractor([path], names, of_category(options, category))
        return found.concat()[0] if head is None else head.of_image(found)

    return features


def evaluate_pairs(
    pairs: Sequence[Pair],
    features: Callable[[Path, str], Tensor],
    *,
    side: int | None = 512,
    head: Callable[[Tensor], Tensor] | None = None,
    thresholds: Sequence[float] = (0.1,),
    soft: SoftArgmax | None = None,
    is_rounded: bool = False,
    on_pair: Callable[[int, int], None] | None = None,
    on_error: Callable[[Pair, Exception], None] | None = None,
) -> dict[tuple[float, Against], PCK]:
    """Score features on pairs, against image and box at once.

    Args:
        pairs: The pairs.
        features: Function from the path of an image and its category to ``(C, h, w)``.
        side: Cells to which features are resized.
        head: Function applied to features ``(1, C, h, w)`` first.
        thresholds: Largest distances of a hit.
        soft: Refinement of the cells found.
        is_rounded: Whether points are rounded as in the authors' code, see :func:`predict_points`.
        on_pair: Called with pairs done and all of them.
        on_error: Called with each pair of which an image cannot be read, and why; such pairs are left out. If
            ``None`` the first of them ends the work.

    Returns:
        A figure for each threshold and each reference.

    Raises:
        OSError: If an image is missing.
        ValueError: If an image cannot be read, or no pair is left.
    """
    scored: list[Pair] = []
    predicted: list[Tensor] = []
    for number, pair in enumerate(pairs, 1):
        try:
            source, target = features(pair.source, pair.category), features(pair.target, pair.category)
        except (ImageError, OSError) as error:
            if on_error is None:
                raise
            on_error(pair, error)
            continue
        found = predict_points(pair, source, target, side=side, head=head, soft=soft, is_rounded=is_rounded)
        scored.append(pair)
        predicted.append(found)
        if on_pair is not None:
            on_pair(number, len(pairs))
    ways: tuple[Against, ...] = ("image", "box")
    return {
        (threshold, way): pck(scored, predicted, threshold=threshold, against=way)
        for threshold in thresholds
        for way in ways
    }


__all__ = [
    "PCK",
    "SPAIR_PAIRS",
    "Pair",
    "evaluate_pairs",
    "pair_features",
    "pck",
    "predict_points",
    "read_pair_list",
    "read_spair",
]
