# SPDX-License-Identifier: Apache-2.0
"""Labelled images: scenes with classes, and pairs of views with points that correspond."""

from __future__ import annotations

from typing import Literal

import numpy as np
from diffeat.ranking import KeypointLabels, MaskLabels
from numpy.typing import NDArray
from shapeworld import SceneConfig, Split, draw_scene, render, scene_rng
from shapeworld.vocabulary import COLOURS, SHAPES
from shapeworld.warps import Keypoints, Pair, WarpConfig, draw_pair

SIDE = 128  # pixels; the grid of the latent has 32 cells a side, the bottom of the U-Net 8
VIEWS = 41  # purpose number of the stream of random numbers that warps are drawn from

Kind = Literal["shape", "colour", "points", "crowd"]
KINDS: tuple[Kind, ...] = ("shape", "colour", "points", "crowd")
TITLES: dict[Kind, str] = {
    "shape": "classes by shape, simple scenes",
    "colour": "classes by colour, simple scenes",
    "points": "points of two views",
    "crowd": "classes by shape, two to four things on any ground",
}

SIMPLE = SceneConfig.preset("simple")
CROWD = SceneConfig(num_things=(0.0, 1.0, 1.0, 1.0))
# the same things seen again: turned, nearer or farther, a little bent, each moved by itself
VIEW = WarpConfig(motion=0.08, turn=0.3)

_NAMES: dict[Kind, tuple[str, ...]] = {"shape": SHAPES, "colour": COLOURS, "crowd": SHAPES}


def draw_masks(kind: Kind, seed: int, count: int) -> MaskLabels:
    """Render scenes of the test split with a class for every pixel, the ground first.

    Args:
        kind: Kind of the classes.
        seed: Seed of the scenes.
        count: Scenes.
    """
    config = CROWD if kind == "crowd" else SIMPLE
    attribute = "colour" if kind == "colour" else "shape"
    renderings = [render(draw_scene(seed, i, split="test", config=config), SIDE) for i in range(count)]
    return MaskLabels(
        [rendering.image for rendering in renderings],
        [rendering.semantic(attribute) for rendering in renderings],
        ("ground", *_NAMES[kind]),
    )


def draw_points(seed: int, count: int) -> KeypointLabels:
    """Render two views of scenes of the test split, with the points that are seen in both.

    Args:
        seed: Seed of the scenes.
        count: Pairs.

    Returns:
        Labels of twice as many images; only the two of a pair share points.
    """
    images: list[NDArray[np.uint8]] = []
    points: list[dict[str, tuple[float, float]]] = []
    for pair in view_pairs(seed, count):
        number = len(images)
        images += [pair.first.image, pair.second.image]
        points += list(shared_points(pair.keypoints, f"pair {number // 2}, "))
    return KeypointLabels(images, points)


def view_pairs(seed: int, count: int, *, split: Split = "test") -> list[Pair]:
    """Render pairs of views of scenes."""
    scenes = [draw_scene(seed, i, split=split, config=SIMPLE) for i in range(count)]
    return [draw_pair(scene, scene_rng(seed, i, VIEWS), SIDE, config=VIEW) for i, scene in enumerate(scenes)]


def shared_points(
    keypoints: Keypoints, prefix: str
) -> tuple[dict[str, tuple[float, float]], dict[str, tuple[float, float]]]:
    """Points that both views show, by name, ``(x, y)`` in pixels of each."""
    first: dict[str, tuple[float, float]] = {}
    second: dict[str, tuple[float, float]] = {}
    for i in np.flatnonzero(keypoints.seen_first & keypoints.seen_second):
        name = f"{prefix}thing {keypoints.things[i]}, {keypoints.names[i]}"
        for found, places in ((first, keypoints.first), (second, keypoints.second)):
            x, y = places[i].tolist()
            found[name] = (x, y)
    return first, second


def draw(kind: Kind, seed: int, count: int) -> MaskLabels | KeypointLabels:
    """Render ``count`` labelled images of a kind."""
    return draw_points(seed, count // 2) if kind == "points" else draw_masks(kind, seed, count)
