# SPDX-License-Identifier: Apache-2.0
"""The trained probe as a judge, and how well it judges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy import ndimage
from shapeworld import Rendering, SceneConfig, Split, draw_scene, render
from shapeworld.vocabulary import COLOURS, Attribute

from recipes.cards import CARDS
from recipes.probes.network import NAMES, Opinion, Probe

UInt8 = NDArray[np.uint8]
Int = NDArray[np.int64]

WEIGHTS = CARDS / "probe.safetensors"
SMALLEST_THING = 36  # pixels; what is smaller is a blot
BATCH = 64


class Judge:
    """Says what is in images; used on generated ones only, never trained on them.

    Args:
        probe: The trained network.
    """

    def __init__(self, probe: Probe) -> None:
        self.probe = probe.eval().requires_grad_(False)

    @classmethod
    def load(cls, weights: Path = WEIGHTS) -> Self:
        """Load the probe of the lab, or another one."""
        probe = Probe()
        stored = {name: value.float() for name, value in load_file(weights).items()}
        missing, unexpected = probe.load_state_dict(stored, strict=False)
        # counters of batch normalisation are integers and of no use to a frozen network
        if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
            raise ValueError(f"{weights} does not hold a probe: {unexpected=}, {missing=}")
        return cls(probe)

    def classify(self, images: UInt8) -> dict[Attribute, Int]:
        """Name the only thing of each image.

        Args:
            images: ``(B, H, W, 3)`` uint8, sides divisible by 8.

        Returns:
            ``(B,)`` int64 by attribute: places in the vocabulary.
        """
        opinions = list(self._opinions(images))
        return {key: torch.cat([one.things[key].argmax(dim=1) for one in opinions]).numpy() for key in NAMES}

    def segment(self, images: UInt8) -> dict[Attribute, UInt8]:
        """Name every pixel: ``(B, H, W)`` uint8 by attribute, labels as in :mod:`shapeworld.vocabulary`."""
        opinions = list(self._opinions(images))
        return {
            key: torch.cat([one.pixels[key].argmax(dim=1) for one in opinions]).numpy().astype(np.uint8)
            for key in NAMES
        }

    def count(self, images: UInt8) -> Int:
        """Count the things of each image, ``(B,)`` int64: patches of one colour, without blots."""
        return np.array([sum(1 for _ in _patches(mask)) for mask in self.segment(images)["colour"]])

    def colours(self, images: UInt8) -> list[set[str]]:
        """Return the colours of the things of each image."""
        return [{colour for colour, _ in _patches(mask)} for mask in self.segment(images)["colour"]]

    def _opinions(self, images: UInt8) -> Iterator[Opinion]:
        for start in range(0, len(images), BATCH):
            x = torch.from_numpy(np.ascontiguousarray(images[start : start + BATCH])).permute(0, 3, 1, 2)
            with torch.inference_mode():
                yield self.probe(x.float() / 255)


def _patches(mask: UInt8) -> Iterator[tuple[str, int]]:
    """Yield colour and area of each connected patch of a colour mask that is large enough for a thing."""
    for label in np.unique(mask[mask > 0]).tolist():
        parts, _ = ndimage.label(mask == label)
        for area in np.bincount(parts.ravel())[1:].tolist():
            if area >= SMALLEST_THING:
                yield COLOURS[label - 1], area


def accuracy(judge: Judge, *, count: int = 400, seed: int = 1000) -> dict[str, dict[str, float]]:
    """Measure the judge on scenes it never saw, in per cent.

    Args:
        judge: Whom to judge.
        count: Scenes of each kind.
        seed: Random seed of the scenes.

    Returns:
        By kind of scene: how often the only thing is named rightly, mean IoU of the pixels' names, how often
        one to three things that do not cover each other are counted rightly, all colours found.
    """
    result: dict[str, dict[str, float]] = {}
    kinds: tuple[tuple[str, SceneConfig, Split], ...] = (
        ("full", SceneConfig(), "test"),
        ("simple", SceneConfig.preset("simple"), "test"),
        ("novel", SceneConfig(), "novel"),
    )
    for name, config, split in kinds:
        single = _draw(config, (1.0,), split, count, seed)
        few = _draw(config, (0.4, 0.3, 0.3), split, count, seed + 1)
        images = np.stack([one.image for one in single])
        said = judge.classify(images)
        figures = {
            f"{key}_right": _percent(
                said[key] == [NAMES[key].index(getattr(one.scene.things[0], key)) for one in single]
            )
            for key in NAMES
        }
        images = np.stack([one.image for one in few])
        masks = judge.segment(images)
        for key in NAMES:
            figures[f"{key}_miou"] = _mean_iou(masks[key], np.stack([one.semantic(key) for one in few]))
        figures["count_right"] = _percent(judge.count(images) == [len(one.scene.things) for one in few])
        wanted = [{thing.colour for thing in one.scene.things} for one in few]
        found = [want <= seen for want, seen in zip(wanted, judge.colours(images), strict=True)]
        figures["colours_found"] = _percent(found)
        result[name] = figures
    return result


def _draw(
    config: SceneConfig, num_things: tuple[float, ...], split: Split, count: int, seed: int
) -> list[Rendering]:
    """Render scenes whose things do not cover each other."""
    config = SceneConfig(
        num_things=num_things, occlusion=0.0, backgrounds=config.backgrounds, saturation=config.saturation
    )
    return [render(draw_scene(seed, i, split=split, config=config), 64) for i in range(count)]


def _percent(right: object) -> float:
    return round(100 * float(np.mean(right)), 2)


def _mean_iou(said: UInt8, true: UInt8) -> float:
    labels = np.unique(true)
    shares = [np.sum((said == i) & (true == i)) / np.sum((said == i) | (true == i)) for i in labels]
    return round(100 * float(np.mean(shares)), 2)
