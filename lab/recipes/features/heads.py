# SPDX-License-Identifier: Apache-2.0
"""Does a trained head find points better than the activations themselves? Views of drawn scenes say."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Annotated, Any

import torch
from common_kernels.runtime.cli import emit, warn
from common_kernels.runtime.files import write_json
from cyclopts import Parameter
from cyclopts.types import PositiveInt
from cyclopts.validators import Number
from diffeat import ExtractionOptions, FeatureExtractor
from diffeat.heads import AggregationHead
from diffeat.options import TrainingOptions
from diffeat.pck import Pair, evaluate_pairs, pair_features
from PIL import Image
from shapeworld import Split
from shapeworld.warps import Pair as Views

from recipes.features.bench import TIMESTEP
from recipes.features.scenes import SIDE, shared_points, view_pairs
from recipes.features.sets import LEGACY
from recipes.options import Processor

# streams of scenes that nothing else takes
SEEDS: Mapping[Split, int] = {"train": 900, "val": 910, "test": 920}
THRESHOLDS = (0.1, 0.05)
OPTIONS = ExtractionOptions(timesteps=(TIMESTEP,), size=SIDE)


def write_pairs(folder: Path, split: Split, number: int) -> list[Pair]:
    """Render two views each of scenes of a split, and return them as pairs with the points seen in both."""
    folder.mkdir(parents=True, exist_ok=True)
    found: list[Pair] = []
    for place, views in enumerate(view_pairs(SEEDS[split], number, split=split)):
        pair = _pair(folder, f"{split}-{place}", views)
        if len(pair.source_points):
            found.append(pair)
    return found


def _pair(folder: Path, name: str, views: Views) -> Pair:
    paths = [folder / f"{name}-{letter}.png" for letter in "ab"]
    for path, view in zip(paths, (views.first, views.second), strict=True):
        Image.fromarray(view.image).save(path)
    first, second = (
        torch.tensor(list(points.values()), dtype=torch.float64).reshape(-1, 2)
        for points in shared_points(views.keypoints, "")
    )
    return Pair(
        name=name,
        category="scene",
        source=paths[0],
        target=paths[1],
        source_points=first,
        target_points=second,
        source_size=(SIDE, SIDE),
        target_size=(SIDE, SIDE),
        target_box=(0, 0, SIDE, SIDE),
    )


def judge_pairs(
    extractor: FeatureExtractor, pairs: Sequence[Pair], head: AggregationHead | None
) -> dict[str, float]:
    """Share of points found at each threshold, in sides, by the activations or through a head."""
    features = pair_features(extractor, LEGACY, OPTIONS, head=head, keep=2)
    found = evaluate_pairs(pairs, features, side=SIDE, thresholds=THRESHOLDS)
    return {f"{threshold:g}": round(found[threshold, "image"].per_point, 4) for threshold in THRESHOLDS}


def heads(
    *,
    model: str = "tiny-sdxl",
    folder: Path = Path("runs/heads"),
    train: PositiveInt = 60,
    judged: PositiveInt = 40,
    steps: PositiveInt = 300,
    dim: PositiveInt = 128,
    seeds: Annotated[int, Parameter(validator=Number(gte=1))] = 2,
    processor: Processor = Processor(),
) -> None:
    """Train aggregation heads on pairs of views and measure PCK beside the same activations without a head.

    Args:
        model: Shipped name or folder of a diffusers pipeline.
        folder: Folder of images, heads and figures.
        train: Number of training pairs.
        judged: Number of validation and of test pairs.
        steps: Number of steps of the optimiser.
        dim: Channels of the head's own features.
        seeds: Number of trainings.
    """
    from diffeat.training import HeadTraining

    torch.set_num_threads(processor.threads)
    start = time.perf_counter()
    extractor = FeatureExtractor.from_pretrained(model, device="cpu")
    known = write_pairs(folder / "images", "train", train)
    parts: dict[Split, list[Pair]] = {
        split: write_pairs(folder / "images", split, judged) for split in ("val", "test")
    }
    rows: dict[str, Any] = {}
    for seed in (None, *range(seeds)):
        head, title = None, "no head"
        if seed is not None:
            title = f"head, seed {seed}"
            head, _ = HeadTraining(
                extractor=extractor,
                names=LEGACY,
                extraction=OPTIONS,
                options=TrainingOptions(steps=steps, dim=dim, seed=seed, keep=2 * len(known)),
                folder=folder / f"seed-{seed}",
            ).on_pairs(known)
        rows[title] = {split: judge_pairs(extractor, pairs, head) for split, pairs in parts.items()}
        warn(f"{title}: {rows[title]}")
    report = {
        "activations": LEGACY,
        "pairs": {"train": len(known), **{split: len(pairs) for split, pairs in parts.items()}},
        "points": {split: sum(len(each.source_points) for each in pairs) for split, pairs in parts.items()},
        "steps": steps,
        "pck": rows,
        "gain": {split: _gain(rows, split) for split in parts},
        "minutes": round((time.perf_counter() - start) / 60, 1),
    }
    write_json(folder / "heads.json", report)
    emit(report)


def _gain(rows: Mapping[str, Any], split: Split) -> dict[str, list[float]]:
    """Mean and deviation over trainings of what a head adds, by threshold."""
    plain = rows["no head"][split]
    gains = {
        name: [row[split][name] - value for title, row in rows.items() if title != "no head"]
        for name, value in plain.items()
    }
    return {name: [round(fmean(each), 4), round(pstdev(each), 4)] for name, each in gains.items()}
