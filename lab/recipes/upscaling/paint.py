# SPDX-License-Identifier: Apache-2.0
"""Paints the pictures of a row, one after the other, and keeps them, so that a study that was cut goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common_kernels.runtime.files import atomic_path
from diffusers import StableDiffusionXLPipeline
from numpy.typing import NDArray
from PIL import Image
from pixelsmith.adapters import from_pipeline
from pixelsmith.config import JobConfig
from pixelsmith.job import Job, JobSpec, MemoryStore
from pixelsmith.job.plan import plan_stages
from shapeworld import render

from recipes.tiny_sdxl.assembly import STEPS, paint_prompts
from recipes.tiny_sdxl.images import SIDE
from recipes.tiny_sdxl.judging import Order
from recipes.upscaling.rows import BAND, Row

Images = NDArray[np.uint8]
BATCH = 8  # patches that go to the model together


@dataclass(frozen=True, slots=True)
class Painted:
    """The pictures of a row.

    Attributes:
        images: ``(B, H, W, 3)`` uint8.
        calls: Patches that the model denoised for one picture, on average; 0 where there are none.
        seconds: For one picture, on average.
    """

    images: Images
    calls: float
    seconds: float


def paint(
    row: Row,
    pipeline: StableDiffusionXLPipeline,
    orders: Sequence[Order],
    base: Images,
    *,
    seed: int,
    tick: Callable[[], object] = lambda: None,
) -> Painted:
    """Paint the pictures of a row.

    Args:
        row: How.
        pipeline: The model.
        orders: What is wanted.
        base: Their pictures of native size, ``(B, 64, 64, 3)`` uint8.
        seed: Picture ``i`` is painted with the noise of ``seed + i``.
        tick: Is called after every picture.
    """
    images: list[Images] = []
    calls = 0
    begun = time.perf_counter()
    for number, (order, small) in enumerate(zip(orders, base, strict=True)):
        picture, own = _one(row, pipeline, order, small, seed + number)
        images.append(picture)
        calls += own
        tick()
    count = len(images)
    return Painted(np.stack(images), calls / count, (time.perf_counter() - begun) / count)


def _one(
    row: Row, pipeline: StableDiffusionXLPipeline, order: Order, small: Images, seed: int
) -> tuple[Images, int]:
    side = SIDE * row.scale
    match row.way:
        case "scene":
            return render(order.scene, side).image, 0
        case "lanczos":
            resized = Image.fromarray(small).resize((side, side), Image.Resampling.LANCZOS)
            return np.asarray(resized), 0
        case "direct":
            return paint_prompts(pipeline, [order.prompt], seed=seed, side=side)[0], 0
        case "pixelsmith":
            return _enlarged(row, pipeline, order.prompt, small, seed)


def _enlarged(
    row: Row, pipeline: StableDiffusionXLPipeline, prompt: str, small: Images, seed: int
) -> tuple[Images, int]:
    model = from_pipeline(
        pipeline,
        prompt,
        num_inference_steps=STEPS,
        guidance_scale=row.guidance,
        conditioning=row.conditioning,
    )
    given = {"band": BAND, "batch_size": BATCH, "seed": seed, "patch_multiple": model.patch_multiple}
    config = JobConfig(**{"patch": model.patch, **given, **row.settings})
    side = SIDE * row.scale
    stages = plan_stages((SIDE, SIDE), (side, side), model.vae_scale_factor, row.stages)
    spec = JobSpec(sizes=tuple(stages), source_size=(SIDE, SIDE), config=config)
    result = Job(model, spec, MemoryStore(), image=small).run()
    return result.image.array, result.calls


def kept(folder: Path, row: Row, make: Callable[[], Painted]) -> Painted:
    """Return the pictures of a row from the folder, or make and keep them."""
    file = folder / f"{row.key.replace(' ', '-').replace(',', '')}.npz"
    if file.exists():
        with np.load(file) as held:
            return Painted(held["images"], float(held["calls"]), float(held["seconds"]))
    painted = make()
    with atomic_path(file) as part:
        np.savez(part, images=painted.images, calls=painted.calls, seconds=painted.seconds)
    return painted
