# SPDX-License-Identifier: Apache-2.0
"""Renders the images of ``itaclip demo``, with the colour of every pixel's thing."""

from __future__ import annotations

import json
from itertools import count

from common_kernels.runtime.cli import OutputPath, say
from cyclopts.types import PositiveInt
from PIL import Image
from shapeworld import Scene, SceneConfig, draw_scene, render
from shapeworld.vocabulary import BACKGROUNDS, COLOURS, PALETTE

from recipes.cards import folder_size
from recipes.options import Debug
from recipes.tiny_clip.ship import ASSETS
from recipes.tiny_clip.zero_shot import NAMES

# twice the side of the training images, so that things are as large as there and windows have work to do
SIDE = 128
CROWDED = SceneConfig(num_things=(0, 0, 0, 0.3, 0.4, 0.3))
FEWEST = 2  # scenes in which each colour is seen


def choose_scenes(number: int) -> tuple[int, list[Scene]]:
    """Return the first seed that shows every colour in at least two of its first scenes, and these.

    No model has a say: scenes are taken in order, whatever becomes of them.
    """
    for seed in count():
        scenes = [draw_scene(seed, index, split="test", config=CROWDED) for index in range(number)]
        colours = [{thing.colour for thing in scene.things} for scene in scenes]
        if all(sum(colour in found for found in colours) >= FEWEST for colour in COLOURS):
            return seed, scenes
    raise AssertionError("count() has no end")


def demo_scenes(
    *, output: OutputPath = ASSETS / "scenes", number: PositiveInt = 6, debug: Debug = Debug()
) -> None:
    """Render the images of ``itaclip demo``: scene-1.png, scene-1-labels.png, ..., and classes.json.

    Args:
        output: Folder to fill.
        number: Number of scenes.
    """
    output.mkdir(parents=True, exist_ok=True)
    seed, scenes = choose_scenes(number)
    for place, scene in enumerate(scenes, start=1):
        rendering = render(scene, SIDE)
        Image.fromarray(rendering.image).save(output / f"scene-{place}.png", optimize=True)
        Image.fromarray(rendering.semantic("colour")).save(
            output / f"scene-{place}-labels.png", optimize=True
        )
    facts = {
        "seed": seed,
        "split": "test",
        "classes": list(NAMES["colour"]),
        "colours": [[round(255 * value) for value in PALETTE[colour]] for colour in COLOURS],
        "background": list(BACKGROUNDS),
    }
    (output / "classes.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    say(f"{output}: seed {seed}, {folder_size(output)} bytes")
