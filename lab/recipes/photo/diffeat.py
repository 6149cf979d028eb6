# SPDX-License-Identifier: Apache-2.0
"""Activations of the small diffusion model on composites and on pairs of photographs, beside SIFT."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from xml.etree import ElementTree

import numpy as np
from common_kernels.runtime.images import read_rgb
from diffeat import FeatureExtractor
from diffeat.match import hits
from diffeat.ranking import MaskLabels
from numpy.typing import NDArray
from photoworld import draw_scene, library
from PIL import Image
from shapeworld import Rendering, render, scene_rng
from shapeworld.vocabulary import COLOURS as KNOWN
from shapeworld.warps import Pair, draw_pair

from recipes.features.bench import Bench, Sizes
from recipes.features.commands import CARD, MODEL
from recipes.features.scenes import CROWD, SIDE, VIEW, VIEWS, Kind
from recipes.features.sets import PIXELS
from recipes.features.stereo import Matched, match_pair
from recipes.photo.tables import Table, Values

Float = NDArray[np.float64]
UInt8 = NDArray[np.uint8]

PAIR_SIDE = 256  # pixels of a composite whose points are matched
THRESHOLDS = (0.05, 0.02)  # largest distance of a hit, in larger sides
IGNORED = 255
# the sets that the study on drawn scenes compared; chosen there, judged here
SEGMENTING = ("legacy", "paper", "latent", PIXELS)
MATCHING = ("legacy", "paper", "latent", PIXELS, "for points")
DATA = "usr/share/doc/opencv-doc/examples/data"


def judge(seeds: Sequence[int], count: int = 12) -> list[Table]:
    """Segment fresh composites and find points again: in warped ones, and in two real pairs.

    Args:
        seeds: Seeds of the composites.
        count: Composites that are segmented, for each seed and kind of classes; and a third as many pairs.
    """
    chosen: dict[str, list[str]] = json.loads(CARD.read_text("utf-8"))["sets"]
    extractor = FeatureExtractor.from_pretrained(MODEL, device="cpu")
    bench = Bench(extractor, Sizes(fresh=count, seeds=len(seeds), folds=min(6, count // 2)), draw=draw_masks)
    tables = [
        _segmentation(bench, kind, title, chosen, seeds)
        for kind, title in (("shape", "cut-out or ground"), ("colour", "ten colours and ground"))
    ]
    sets = {title: chosen[title] for title in MATCHING}
    warped = [
        match_pair(extractor, sets, pair.first.image, pair.second.image, partial(_carried, pair))
        for seed in seeds
        for pair in _pairs(seed, max(1, count // 3))
    ]
    for threshold in THRESHOLDS:
        tables.append(_matching("warped composites of 256 px", warped, PAIR_SIDE, threshold, "pairs"))
    for title, (left, right, partner) in (("graffiti", graffiti()), ("aloe", aloe())):
        matched = match_pair(extractor, sets, left, right, partner)
        for threshold in THRESHOLDS:
            tables.append(_by_point(title, matched, max(left.shape), threshold))
    return tables


def draw_masks(kind: Kind, seed: int, count: int) -> MaskLabels:
    """Render composites with a class for every pixel: thing or ground for ``shape``, else the colour."""
    renderings = [render(draw_scene(seed, i, split="test", config=CROWD), SIDE) for i in range(count)]
    if kind == "shape":
        return MaskLabels(
            [each.image for each in renderings],
            [(each.instances > 0).astype(np.uint8) for each in renderings],
            ("ground", "thing"),
        )
    return MaskLabels(
        [each.image for each in renderings], [_colours(each) for each in renderings], ("ground", *KNOWN)
    )


def _colours(rendering: Rendering) -> UInt8:
    labels = rendering.semantic("colour")
    return np.where(labels > len(KNOWN), IGNORED, labels).astype(np.uint8)


def _segmentation(
    bench: Bench, kind: Kind, title: str, chosen: Mapping[str, Sequence[str]], seeds: Sequence[int]
) -> Table:
    """Train a probe on most composites of a seed and judge it on the others, in turn."""
    ours = f"for {kind}"
    sets = {name: list(chosen[name]) for name in (*SEGMENTING, ours)}
    taken = list(dict.fromkeys(name for names in sets.values() for name in names))
    scores: dict[str, list[float]] = {name: [] for name in sets}
    for seed in seeds:
        ranker = bench.ranker(kind, seed, bench.sizes.fresh, taken)
        for name, names in sets.items():
            scores[name] += [100 * score for score in ranker.evaluate(names).scores]
    return Table(
        f"mIoU of a linear probe, %: {title}, composites of {SIDE} px",
        {name: Values(found) for name, found in scores.items()},
        ours=ours,
        baselines=(PIXELS, "latent", "legacy"),
        unit="folds",
    )


def _pairs(seed: int, count: int) -> list[Pair]:
    scenes = [draw_scene(seed, i, split="test", config=CROWD) for i in range(count)]
    return [
        draw_pair(scene, scene_rng(seed, i, VIEWS), PAIR_SIDE, config=VIEW) for i, scene in enumerate(scenes)
    ]


def _carried(pair: Pair, places: Float) -> Float:
    """Where points of the first view lie in the second, NaN where that shows something else."""
    columns, rows = np.floor(places).astype(np.int64).clip(0, PAIR_SIDE - 1).T
    inside = places - np.stack([columns + 0.5, rows + 0.5], axis=-1)
    return np.where(pair.valid[rows, columns, None], pair.target[rows, columns] + inside, np.nan)


def graffiti() -> tuple[UInt8, UInt8, Callable[[Float], Float]]:
    """Return both photographs of the painted wall at half size, and the homography between them."""
    left, right = (_read(name, 0.5) for name in ("graf1.png", "graf3.png"))
    root = ElementTree.parse(_file("H1to3p.xml")).getroot()
    numbers = root.findtext(".//data")
    assert numbers is not None
    matrix = np.array(numbers.split(), dtype=np.float64).reshape(3, 3)

    def partner(places: Float) -> Float:
        # pixels of the full size, counted from the centre of the first, are what the matrix takes
        full = np.concatenate([2 * places - 0.5, np.ones((len(places), 1))], axis=1) @ matrix.T
        return (full[:, :2] / full[:, 2:] + 0.5) / 2

    return left, right, partner


def aloe() -> tuple[UInt8, UInt8, Callable[[Float], Float]]:
    """Return both photographs of the plant at 0.3 of their size, and the measured disparity between them."""
    left, right = (_read(name, 0.3) for name in ("aloeL.jpg", "aloeR.jpg"))
    with Image.open(_file("aloeGT.png")) as image:
        disparity = np.asarray(image.convert("L"), dtype=np.float64)
    scale = np.array(left.shape[1::-1]) / disparity.shape[::-1]

    def partner(places: Float) -> Float:
        columns, rows = np.floor(places / scale).astype(np.int64).T
        height, width = disparity.shape
        known = disparity[rows.clip(0, height - 1), columns.clip(0, width - 1)]
        return np.stack([np.where(known > 0, places[:, 0] - scale[0] * known, np.nan), places[:, 1]], axis=-1)

    return left, right, partner


def _file(name: str) -> str:
    pictures = library()
    return str(pictures.file(pictures.manifest.by_key[f"opencv-doc/{DATA}/{name}"]))


def _read(name: str, scale: float) -> UInt8:
    image = read_rgb(_file(name))
    # sides that the autoencoder and the U-Net can halve
    size = round(image.width * scale / 16) * 16, round(image.height * scale / 16) * 16
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))


def _matching(title: str, found: Sequence[Matched], side: int, threshold: float, unit: str) -> Table:
    counts = [len(each.wanted) for each in found]
    rows = {
        name: Values([_share(each, name, side, threshold) for each in found], counts)
        for name in found[0].found
    }
    return _table(f"{title}: {sum(counts)} points of SIFT found within {threshold:g} sides, %", rows, unit)


def _by_point(title: str, matched: Matched, side: int, threshold: float) -> Table:
    rows = {
        name: Values((100 * hits(places, matched.wanted, threshold * side).double()).tolist())
        for name, places in matched.found.items()
    }
    return _table(f"{title} pair: points of SIFT found within {threshold:g} sides, %", rows, "points")


def _share(matched: Matched, name: str, side: int, threshold: float) -> float:
    if not len(matched.wanted):
        return 0.0
    return 100 * float(hits(matched.found[name], matched.wanted, threshold * side).double().mean())


def _table(title: str, rows: Mapping[str, Values], unit: str) -> Table:
    return Table(title, rows, ours="for points", baselines=("SIFT", PIXELS, "no motion"), unit=unit)
