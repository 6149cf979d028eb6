# SPDX-License-Identifier: Apache-2.0
"""The demonstration: drawn scenes, and activations of a small diffusion model for them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common_kernels.runtime.cli import OnProgress
from common_kernels.runtime.files import make_folder, write_text
from common_kernels.runtime.pictures import Panel, add_title, comparison, enlarge_or_reduce, stack
from numpy.typing import NDArray
from PIL import Image

from diffeat.extractor import FeatureExtractor
from diffeat.features import Features
from diffeat.html import similarity_page
from diffeat.images import load_images
from diffeat.match import find_points, pixel_patches
from diffeat.options import ExtractionOptions, RankingOptions
from diffeat.pictures import draw_components, draw_matches, draw_values, mark_point, overlay
from diffeat.ranking import KeypointLabels, MaskLabels, Ranked, Ranker, Ranking
from diffeat.shipped import ASSETS

SCENES = ASSETS / "scenes"
SIZE = 128  # pixels; the latent's grid has 32 cells a side
THRESHOLD = 0.05  # in sides: six pixels, while objects measure thirty to fifty
# one of each family along the model, and the activations of earlier work
LEGACY = ("up-level0-upsampler-out", "up-level1-upsampler-out", "up-level2-repeat1-res-out")
CANDIDATES = (
    "unet-in",
    "down-level1-repeat0-vit-out",
    "mid-vit-out",
    "up-level0-repeat0-vit-block0-out",
    "up-level0-repeat1-vit-block0-cross-q",
    "up-level1-repeat0-res-out",
    "up-level1-repeat0-vit-block0-cross-q",
    "up-level1-repeat0-vit-block0-out",
    "up-level1-repeat0-vit-block1-ffn-inner",
    "up-level1-repeat1-vit-block0-self-k",
    "up-level1-repeat1-vit-block1-out",
    "up-level2-repeat0-res-out",
)
_PIXELS = "pixels"
_SIDE = 32  # cells to which features are resized for points

Points = dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class DemoScenes:
    """The images inside this package: pairs of views of drawn scenes.

    Attributes:
        images: RGB images, the two views of each pair in a row.
        points: Points that both views of a pair show, ``(x, y)`` in pixels, for each image.
        masks: Class of every pixel of the first views, ``(H, W)``.
        classes: Class names, the background first.
    """

    images: tuple[Image.Image, ...]
    points: tuple[Points, ...]
    masks: tuple[NDArray[np.uint8], ...]
    classes: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path = SCENES) -> DemoScenes:
        """Read the images, their points and label maps."""
        facts = json.loads((folder / "scenes.json").read_text("utf-8"))
        images: list[Image.Image] = []
        masks: list[NDArray[np.uint8]] = []
        for name in facts["points"]:
            with Image.open(folder / name) as image:
                images.append(image.convert("RGB"))
            labels = folder / name.replace(".png", "-labels.png")
            if labels.is_file():
                with Image.open(labels) as mask:
                    masks.append(np.array(mask))
        points = tuple(
            {key: (float(x), float(y)) for key, (x, y) in each.items()} for each in facts["points"].values()
        )
        return cls(tuple(images), points, tuple(masks), tuple(facts["classes"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoFigures:
    """Results of the demonstration.

    Attributes:
        model: Name of the model.
        num_activations: Number of activations of the model.
        ranked: Number of activations that were ranked.
        best_for_classes: Best activation for classes of pixels, by mIoU on held-out scenes.
        miou: mIoU of that activation.
        miou_baseline: mIoU of the activations of earlier work.
        chosen: Activations chosen on the first half of the pairs.
        pck: Share of points that they find in the second half.
        pck_baseline: Share that earlier work's activations find.
        pck_pixels: Share that raw pixels find.
        threshold: Largest distance of a hit, in sides.
        points: Number of points, in both directions.
        seconds: Seconds in all.
    """

    model: str
    num_activations: int
    ranked: int
    best_for_classes: str
    miou: float
    miou_baseline: float
    chosen: tuple[str, ...]
    pck: float
    pck_baseline: float
    pck_pixels: float
    threshold: float
    points: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, rounded."""
        return {
            key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(self).items()
        }


def run_demo(
    extractor: FeatureExtractor, out: Path, *, name: str, progress: OnProgress = lambda done, total: None
) -> tuple[DemoFigures, Ranking]:
    """Extract, rank, match, and draw.

    Args:
        extractor: The model; a U-Net of three levels.
        out: Folder for ``pca.png``, ``similarity.png``, ``matches.png``, ``page.html`` and ``ranking.json``.
        name: Name of the model.
        progress: Called with steps done and steps in all.

    Returns:
        Results, and the ranking for classes of pixels.
    """
    start = time.perf_counter()
    scenes = DemoScenes.load()
    total = len(CANDIDATES) + 3
    progress(0, total)
    listed = extractor.list_activations(size=SIZE)
    features = _features(extractor, scenes)
    progress(1, total)
    judges = Ranker(
        _part(features, slice(0, None, 2)), _masks(scenes), ranking=RankingOptions(folds=4, pixels=200)
    )
    ranking = judges.rank(CANDIDATES, on_score=lambda done, _all, _name: progress(1 + done, total))
    legacy = judges.evaluate(LEGACY)
    chosen = _choose(features, scenes)
    scores = _judge(features, scenes, {"chosen": chosen.names, "legacy": LEGACY, "pixels": (_PIXELS,)})
    progress(total - 1, total)
    make_folder(out)
    ranking.to_json(out / "ranking.json")
    _draw(features, scenes, chosen.names, out)
    progress(total, total)
    half = len(scenes.images) // 2
    figures = DemoFigures(
        model=name,
        num_activations=len(listed),
        ranked=len(CANDIDATES),
        best_for_classes=ranking.rows[0].names[0],
        miou=ranking.rows[0].mean,
        miou_baseline=legacy.mean,
        chosen=chosen.names,
        pck=scores["chosen"],
        pck_baseline=scores["legacy"],
        pck_pixels=scores["pixels"],
        threshold=THRESHOLD,
        points=sum(len(points) for points in scenes.points[half:]),
        seconds=time.perf_counter() - start,
    )
    return figures, ranking


def _features(extractor: FeatureExtractor, scenes: DemoScenes) -> Features:
    found = extractor(scenes.images, {*CANDIDATES, *LEGACY}, ExtractionOptions(size=SIZE), batch_size=4)
    patches = pixel_patches(list(load_images(scenes.images)))
    tensors = {name: value.float().cpu() for name, value in found.items()}
    return Features({**tensors, _PIXELS: patches}, found.meta)


def _part(features: Features, rows: slice) -> Features:
    return Features({name: value[rows] for name, value in features.items()}, features.meta)


def _masks(scenes: DemoScenes) -> MaskLabels:
    return MaskLabels(scenes.images[::2], scenes.masks, scenes.classes)


def _points_ranker(features: Features, scenes: DemoScenes, rows: slice) -> Ranker:
    labels = KeypointLabels(scenes.images[rows], scenes.points[rows])
    return Ranker(
        _part(features, rows), labels, ranking=RankingOptions(folds=2, side=_SIDE, threshold=THRESHOLD)
    )


def _choose(features: Features, scenes: DemoScenes) -> Ranked:
    """Choose activations on the first half of the pairs, with no more channels than those of earlier work."""
    ranker = _points_ranker(features, scenes, slice(0, len(scenes.images) // 2))
    budget = sum(features[name].shape[1] for name in LEGACY)
    return ranker.select(CANDIDATES, channels=budget, candidates=6).rows[-1]


def _judge(features: Features, scenes: DemoScenes, sets: dict[str, Sequence[str]]) -> dict[str, float]:
    """Shares of points found in the second half of the pairs."""
    ranker = _points_ranker(features, scenes, slice(len(scenes.images) // 2, None))
    return {title: ranker.evaluate(names).mean for title, names in sets.items()}


def _draw(features: Features, scenes: DemoScenes, chosen: Sequence[str], out: Path) -> None:
    values = list(features.concat(chosen))
    fine = list(features.concat(chosen, side=_SIDE))  # while the results are computed
    early = list(features.concat(LEGACY))
    shown = [4 * i for i in range(len(scenes.images) // 4)]  # first views of every other pair
    both = [draw_components([each[i] for i in shown]) for each in (early, values)]
    captions = ("image", "outputs of the levels", "chosen here")
    rows = [
        comparison(
            [
                Panel("" if place else caption, "", each)
                for caption, each in zip(
                    captions, (scenes.images[i], *(drawn[place] for drawn in both)), strict=True
                )
            ],
            height=2 * SIZE,
        )
        for place, i in enumerate(shown)
    ]
    stack(rows, title="The three strongest principal components of features, as colours").save(
        out / "pca.png"
    )
    last = len(scenes.images) - 2
    pairs = range(len(scenes.images) // 2, len(scenes.images), 2)  # the test views
    stack(
        [_similarity(scenes, values, i) for i in pairs],
        title="Cosine of every cell of two views to a point of the first: dark least, yellow most",
    ).save(out / "similarity.png")
    stack(
        [_matches(scenes, fine, i) for i in pairs],
        title="Points of one view, found in the other: green is correct",
    ).save(out / "matches.png")
    page = similarity_page(
        scenes.images[last:],
        values[last:],
        title=f"{' + '.join(chosen)}: two views of a scene",
        captions=("first view", "second view"),
    )
    write_text(out / "page.html", page)


def _shares(scenes: DemoScenes, index: int) -> torch.Tensor:
    image, points = scenes.images[index], scenes.points[index]
    return torch.tensor(list(points.values())) / torch.tensor([image.width, image.height])


def _similarity(scenes: DemoScenes, values: Sequence[torch.Tensor], index: int) -> Image.Image:
    """Return the similarity of every cell of both views to the first point of the first view."""
    points = [tuple(_shares(scenes, i)[0].tolist()) for i in (index, index + 1)]
    drawings, cosines = draw_values("similarity", values[index : index + 2], point=points[0])
    views = [enlarge_or_reduce(scenes.images[i], (2 * SIZE, 2 * SIZE)) for i in (index, index + 1)]
    heat = [overlay(view, each, opacity=0.75) for view, each in zip(views, drawings, strict=True)]
    marked = [mark_point(view, point) for view, point in zip(views, points, strict=True)]
    titles = ("first view", "second view", "first view", "second view")
    subtitles = ("the point", "its true position", *2 * (cosines,))
    panels = [Panel(*each) for each in zip(titles, subtitles, [*marked, *heat], strict=True)]
    return comparison(panels, height=2 * SIZE)


def _matches(scenes: DemoScenes, values: Sequence[torch.Tensor], index: int) -> Image.Image:
    one, other = scenes.images[index], scenes.images[index + 1]
    start, truth = _shares(scenes, index), _shares(scenes, index + 1)
    found = find_points(values[index], values[index + 1], start)
    found = found.judged(truth, other.size, THRESHOLD)
    drawing = draw_matches(one, other, found.source, found.target, is_right=found.is_right)
    right = f"{round(found.pck * len(start))} of {len(start)} points found"
    return add_title(drawing, right, indent=12)
