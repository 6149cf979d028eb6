# SPDX-License-Identifier: Apache-2.0
"""Requirements of tiny-sdxl, and its figures, judged from the shipped files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from diffusers import StableDiffusionXLPipeline
from numpy.typing import NDArray
from shapeworld import Scene, SceneConfig, Split, captions, draw_scene, scene_rng
from shapeworld.vocabulary import COLOURS, MATERIALS, SHAPES, Attribute

from recipes.gates import Requirement
from recipes.tiny_sdxl.assembly import generate_images
from recipes.tiny_sdxl.autoencoder import psnr, reconstruct
from recipes.tiny_sdxl.images import SIDE, held_out_images

Images = NDArray[np.uint8]

NAMES: dict[Attribute, tuple[str, ...]] = {"shape": SHAPES, "colour": COLOURS, "material": MATERIALS}
REQUIREMENTS = (
    Requirement(figure="vae_psnr_db", at_least=28.5),
    Requirement(figure="colour_percent", at_least=95),
    Requirement(figure="shape_percent", at_least=65),
    Requirement(figure="both_colours_percent", at_least=80),
)
PROMPTS = 29  # purpose number of the stream of random numbers that the prompts are worded from


class ImageJudge(Protocol):
    """A model that recognises what is in images ``(B, H, W, 3)`` uint8."""

    def classify(self, images: Images) -> Mapping[Attribute, NDArray[np.int64]]:
        """Name the only thing of each image: ``(B,)`` places in the vocabulary, by attribute."""
        ...

    def count(self, images: Images) -> NDArray[np.int64]:
        """Count the things of each image, ``(B,)``."""
        ...

    def colours(self, images: Images) -> list[set[str]]:
        """Name the colours of the things of each image."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """A text and the scene it describes."""

    prompt: str
    scene: Scene


def draw_orders(
    seed: int, count: int, things: int, *, split: Split = "test", length: captions.Length = "short"
) -> list[Order]:
    """Draw captions of scenes of so many things, all of different colours.

    Args:
        seed: Random seed of the world the scenes are from.
        count: Captions.
        things: Things of each scene.
        split: Split of the scenes; ``novel`` names pairs that no training caption held.
        length: Length of the captions.
    """
    config = replace(SceneConfig.preset("simple"), num_things=(0.0,) * (things - 1) + (1.0,))
    orders: list[Order] = []
    index = 0
    while len(orders) < count:
        scene = draw_scene(seed, index, split=split, config=config)
        if len({thing.colour for thing in scene.things}) == things:
            prompt = captions.caption(scene, scene_rng(seed, index, PROMPTS), length=length)
            orders.append(Order(prompt, scene))
        index += 1
    return orders


def single_figures(images: Images, orders: Sequence[Order], judge: ImageJudge) -> dict[str, float]:
    """Return per cent of right colours, shapes, both, and materials where the prompt names one."""
    said = judge.classify(images)
    right = {
        key: np.array([said[key][i] == names.index(_named(order, key)) for i, order in enumerate(orders)])
        for key, names in NAMES.items()
    }
    worded = [order.scene.things[0].material in order.prompt.split() for order in orders]
    return {
        "colour_percent": _percent(right["colour"]),
        "shape_percent": _percent(right["shape"]),
        "colour_and_shape_percent": _percent(right["colour"] & right["shape"]),
        "material_percent": _percent(right["material"][worded]),
        "single_thing_percent": _percent(judge.count(images) == 1),
    }


def _named(order: Order, key: Attribute) -> str:
    return getattr(order.scene.things[0], key)


def _percent(hits: NDArray[np.bool_]) -> float:
    return round(100 * float(np.mean(hits)), 1) if len(hits) else float("nan")


def both_colours(images: Images, orders: Sequence[Order], judge: ImageJudge) -> float:
    """Return per cent of the images in which every colour of the prompt is seen."""
    seen = judge.colours(images)
    wanted = [{thing.colour for thing in order.scene.things} for order in orders]
    return _percent(np.array([w <= s for w, s in zip(wanted, seen, strict=True)]))


def duplicates(images: Images, judge: ImageJudge) -> dict[str, float]:
    """Return how many things images of one thing show: mean, and per cent with more than one."""
    counts = judge.count(images)
    return {"mean_things": round(float(counts.mean()), 2), "several_percent": _percent(counts > 1)}


def judge_pipeline(
    pipeline: StableDiffusionXLPipeline,
    judge: ImageJudge,
    *,
    seed: int,
    count: int = 70,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, float | dict[str, float]]:
    """Measure everything the card holds.

    Args:
        pipeline: The shipped pipeline, in float32.
        judge: The frozen probe.
        seed: Random seed of prompts, noise and the images that the autoencoder is judged on.
        count: Prompts of one thing, and images for the autoencoder; half as many of the rest.
        report: Called with a line about each step.
    """
    tests = held_out_images(count, seed=seed)
    figures: dict[str, float | dict[str, float]] = {
        "vae_psnr_db": round(psnr(reconstruct(pipeline.vae, tests), tests), 2)
    }
    report(f"autoencoder: {figures}")
    few = max(1, count // 2)
    single = draw_orders(seed, count, 1)
    images = _generate(pipeline, single, seed)
    figures |= single_figures(images, single, judge)
    report(f"one thing: {figures}")
    for name, split, length in (("medium", "test", "medium"), ("novel", "novel", "short")):
        orders = draw_orders(seed + 1, few, 1, split=split, length=length)
        figures[name] = single_figures(_generate(pipeline, orders, seed + 1), orders, judge)
    pairs = draw_orders(seed + 2, few, 2)
    figures["both_colours_percent"] = both_colours(_generate(pipeline, pairs, seed + 2), pairs, judge)
    report(f"two things: {figures['both_colours_percent']} %")
    for side in (SIDE, 2 * SIDE, 4 * SIDE):
        orders = single[: max(1, few // (side // SIDE))]
        figures[f"duplicates_{side}px"] = duplicates(_generate(pipeline, orders, seed + 3, side), judge)
    report(f"larger images: {figures}")
    return figures


def _generate(
    pipeline: StableDiffusionXLPipeline, orders: Sequence[Order], seed: int, side: int = SIDE
) -> Images:
    batch_size = max(1, 32 * SIDE**2 // side**2)
    prompts = [order.prompt for order in orders]
    return generate_images(pipeline, prompts, seed=seed, side=side, batch_size=batch_size)
