# SPDX-License-Identifier: Apache-2.0
"""Segmentation of composites by the colour words that the small CLIP knows; it knows no name of a cut-out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from itaclip.evaluation.metrics import confusion
from numpy.typing import NDArray
from photoworld import draw_scene
from shapeworld import Split, render
from shapeworld.vocabulary import COLOURS, PALETTE
from torch import Tensor

from recipes.photo.tables import Confusions, Table
from recipes.segmentation.commands import MODEL
from recipes.segmentation.measure import Bench
from recipes.segmentation.rows import BASE, chosen, preset, with_prior
from recipes.segmentation.scenes import SIDES, TWO_TO_FOUR, Sample, View

PATCH = 8  # pixels: that of the small CLIP, which sees no finer
IGNORED = 255
RULE, CEILING = "nearest colour", "truth at the patches"
RADII = tuple(np.arange(0.1, 0.9, 0.05).round(2).tolist())
ROWS = {
    "vanilla": preset("vanilla"),
    "fast": preset("fast"),
    "itaclip, as in the paper": BASE,
    "itaclip + prior": with_prior(),
    "tiny-shapes, the default": chosen(),
}


def draw_photos(view: View, seed: int, count: int, split: Split = "test") -> Sample:
    """Render composites of two to four cut-outs, labelled by colour; other colours are ignored."""
    renderings = [
        render(draw_scene(seed, i, split=split, config=TWO_TO_FOUR), SIDES[view]) for i in range(count)
    ]
    known = {colour: 1 + i for i, colour in enumerate(COLOURS)}
    truth = [
        np.array([0, *(known.get(thing.colour, IGNORED) for thing in each.scene.things)])[each.instances]
        for each in renderings
    ]
    return Sample([each.image for each in renderings], {"colour": torch.from_numpy(np.stack(truth))})


def judge(seeds: Sequence[int], count: int = 30, model: Path = MODEL, split: Split = "test") -> list[Table]:
    """Segment fresh composites by ten colour words and the ground.

    Args:
        seeds: Seeds of the composites.
        count: Number of composites of each seed.
        model: Folder of the model, in open_clip's format.
        split: Split of the cut-outs and photographs.
    """
    bench = Bench(model, count, draw=draw_photos)
    # the rule is given its best radius on composites of other things, on which nothing was trained
    radius = _best_radius(draw_photos("windows", seeds[0], 4 * count, "val"))
    parts: dict[str, list[Tensor]] = {}
    for seed in seeds:
        sample = draw_photos("windows", seed, count, split)
        bench.encoder.forget()
        truth = sample.truth["colour"]
        parts.setdefault(RULE, []).append(_counts([nearest(one, radius) for one in sample.images], truth))
        for name, row in ROWS.items():
            parts.setdefault(name, []).append(bench.confusions(row, "colour", sample))
        parts.setdefault(CEILING, []).append(_counts([at_patches(one.numpy()) for one in truth], truth))
    rows = {name: Confusions(torch.cat(found).numpy()) for name, found in parts.items()}
    return [
        Table(
            "mIoU by colour word, %, composites of 128 px",
            rows,
            ours="tiny-shapes, the default",
            baselines=(RULE, "vanilla"),
            ceiling=CEILING,
        )
    ]


def nearest(image: NDArray[np.uint8], radius: float) -> NDArray[np.int64]:
    """Label each pixel with the nearest colour of the palette, or as ground if none is near.

    Args:
        image: ``(H, W, 3)``.
        radius: Largest distance, of RGB in [0, 1].
    """
    palette = np.array([PALETTE[colour] for colour in COLOURS])
    away = np.linalg.norm(image[..., None, :] / 255 - palette, axis=-1)
    return np.where(away.min(axis=-1) <= radius, 1 + away.argmin(axis=-1), 0)


def at_patches(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give every patch its commonest label: what a perfect classifier of patches gets."""
    rows, columns = (side // PATCH for side in labels.shape)
    cells = labels.reshape(rows, PATCH, columns, PATCH).transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    counts = np.stack([(cells == label).sum(axis=-1) for label in range(1 + len(COLOURS))])
    return counts.argmax(axis=0).repeat(PATCH, axis=0).repeat(PATCH, axis=1)


def _counts(labels: Sequence[NDArray[np.int64]], truth: Tensor) -> Tensor:
    size = 1 + len(COLOURS)
    return torch.stack(
        [confusion(torch.from_numpy(one), other, size) for one, other in zip(labels, truth, strict=True)]
    )


def _best_radius(sample: Sample) -> float:
    def miou(radius: float) -> float:
        labels = [nearest(image, radius) for image in sample.images]
        found = Confusions(_counts(labels, sample.truth["colour"]).numpy())
        return float(found.over(np.ones((1, len(labels))))[0])

    return max(RADII, key=miou)
