# SPDX-License-Identifier: Apache-2.0
"""The scenes that are segmented, with the classes of every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from shapeworld import SceneConfig, Split, draw_scene, render
from shapeworld.render import Rendering
from shapeworld.scene import Thing
from shapeworld.vocabulary import COLOURS, MATERIALS, SHAPES
from torch import Tensor

from recipes.tiny_clip.scenes import SIDE

Kind = Literal["colour", "colour x material", "shape"]
View = Literal["windows", "whole"]

# side in pixels: an image of four windows of the model, or of one window
SIDES: dict[View, int] = {"windows": 2 * SIDE, "whole": SIDE}
CLASSES: dict[Kind, tuple[str, ...]] = {
    "colour": tuple(f"{colour} thing" for colour in COLOURS),
    "colour x material": tuple(f"{material} {colour} thing" for colour in COLOURS for material in MATERIALS),
    "shape": SHAPES,
}
TWO_TO_FOUR = SceneConfig(num_things=(0.0, 1.0, 1.0, 1.0))


@dataclass(frozen=True, slots=True)
class Sample:
    """Rendered scenes.

    Attributes:
        images: ``(side, side, 3)`` uint8 each.
        truth: Labels by kind of classes, ``(B, side, side)`` int64: 0 ground, else the place of the class
            plus one.
    """

    images: list[NDArray[np.uint8]]
    truth: dict[Kind, Tensor]


def draw(view: View, seed: int, count: int, split: Split = "test") -> Sample:
    """Render scenes of two to four things on a ground.

    Args:
        view: Size of the images; both views of a seed show the same scenes.
        seed: Random seed of the scenes.
        count: Number of scenes.
        split: Split of the world; only ``train`` was used in training.
    """
    renderings = [
        render(draw_scene(seed, i, split=split, config=TWO_TO_FOUR), SIDES[view]) for i in range(count)
    ]
    truth: dict[Kind, Tensor] = {
        kind: torch.from_numpy(np.stack([_labels(each, kind) for each in renderings])) for kind in CLASSES
    }
    return Sample([rendering.image for rendering in renderings], truth)


def _labels(rendering: Rendering, kind: Kind) -> NDArray[np.int64]:
    labels = [0, *(1 + CLASSES[kind].index(name_of(thing, kind)) for thing in rendering.scene.things)]
    return np.array(labels, dtype=np.int64)[rendering.instances]


def name_of(thing: Thing, kind: Kind) -> str:
    """Return the class of a thing."""
    names = {
        "colour": f"{thing.colour} thing",
        "colour x material": f"{thing.material} {thing.colour} thing",
        "shape": thing.shape,
    }
    return names[kind]
