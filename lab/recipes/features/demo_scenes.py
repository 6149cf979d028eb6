# SPDX-License-Identifier: Apache-2.0
"""Renders the images of ``diffeat demo``: pairs of views of small scenes, with classes and points."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

from diffeat.shipped import ASSETS
from PIL import Image
from shapeworld.vocabulary import SHAPES
from shapeworld.warps import Pair

from recipes.features.scenes import shared_points, view_pairs

DEMO = ASSETS / "scenes"
FEWEST_THINGS, FEWEST_POINTS = 2, 6  # in each pair, so that there is something to match


def choose_pairs(number: int) -> tuple[int, list[Pair]]:
    """Return the first seed whose first scenes show every shape, and those with enough things and points.

    No model has a say: scenes are taken in order, whatever becomes of them.
    """
    for seed in count(600):
        pairs = [pair for pair in view_pairs(seed, 6 * number) if _is_rich(pair)][:number]
        shapes = {thing.shape for pair in pairs for thing in pair.first.scene.things}
        if len(pairs) == number and len(shapes) == len(SHAPES):
            return seed, pairs
    raise AssertionError("count() has no end")


def _is_rich(pair: Pair) -> bool:
    points, _ = shared_points(pair.keypoints, "")
    return len(pair.first.scene.things) >= FEWEST_THINGS and len(points) >= FEWEST_POINTS


def write_demo(out: Path, number: int) -> int:
    """Write ``pair-1-a.png``, ``pair-1-b.png``, ``pair-1-a-labels.png``, ..., and ``scenes.json``.

    Args:
        out: Folder to fill.
        number: Pairs.

    Returns:
        The seed of the scenes.
    """
    out.mkdir(parents=True, exist_ok=True)
    seed, pairs = choose_pairs(number)
    points: dict[str, dict[str, tuple[float, float]]] = {}
    for place, pair in enumerate(pairs, 1):
        shared = shared_points(pair.keypoints, f"pair {place}, ")
        for letter, view, own in zip("ab", (pair.first, pair.second), shared, strict=True):
            name = f"pair-{place}-{letter}"
            Image.fromarray(view.image).save(out / f"{name}.png", optimize=True)
            points[f"{name}.png"] = {key: (round(x, 2), round(y, 2)) for key, (x, y) in own.items()}
        labels = Image.fromarray(pair.first.semantic("shape"))
        labels.save(out / f"pair-{place}-a-labels.png", optimize=True)
    facts = {"seed": seed, "split": "test", "classes": ["ground", *SHAPES], "points": points}
    (out / "scenes.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    return seed
