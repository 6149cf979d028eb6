# SPDX-License-Identifier: Apache-2.0
"""Generates the images of a row one by one and stores them, so that an interrupted study resumes."""

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

from recipes.tiny_sdxl.assembly import STEPS, generate_images
from recipes.tiny_sdxl.autoencoder import reconstruct
from recipes.tiny_sdxl.images import SIDE
from recipes.tiny_sdxl.judging import Order
from recipes.upscaling.rows import Row

Images = NDArray[np.uint8]
BATCH = 8  # patches that go to the model together


@dataclass(frozen=True, slots=True)
class Generated:
    """The images of a row.

    Attributes:
        images: Images, ``(B, H, W, 3)`` uint8.
        calls: Mean number of patches through the model per image; 0 without patches.
        seconds: Mean duration per image.
    """

    images: Images
    calls: float
    seconds: float


def generate_row(
    row: Row,
    pipeline: StableDiffusionXLPipeline,
    orders: Sequence[Order],
    base: Images,
    *,
    seed: int,
    tick: Callable[[], object] = lambda: None,
) -> Generated:
    """Generate the images of a row.

    Args:
        row: Method and settings.
        pipeline: Pipeline of the model.
        orders: Prompts with their scenes.
        base: Base images of the prompts, ``(B, 64, 64, 3)`` uint8.
        seed: Random seed; image ``i`` has the noise of ``seed + i``.
        tick: Callback after every image.
    """
    images: list[Images] = []
    calls = 0
    start = time.perf_counter()
    for number, (order, small) in enumerate(zip(orders, base, strict=True)):
        image, own = _one(row, pipeline, order, small, seed + number)
        images.append(image)
        calls += own
        tick()
    count = len(images)
    return Generated(np.stack(images), calls / count, (time.perf_counter() - start) / count)


def _one(
    row: Row, pipeline: StableDiffusionXLPipeline, order: Order, small: Images, seed: int
) -> tuple[Images, int]:
    side = SIDE * row.scale
    match row.way:
        case "scene":
            return render(order.scene, side).image, 0
        case "lanczos":
            return _lanczos(small, side), 0
        case "autoencoder":
            return reconstruct(pipeline.vae, _lanczos(small, side)[None])[0], 0
        case "direct":
            return generate_images(pipeline, [order.prompt], seed=seed, side=side)[0], 0
        case "pixelsmith":
            return _enlarged(row, pipeline, order.prompt, small, seed)


def _lanczos(small: Images, side: int) -> Images:
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.LANCZOS))


def _enlarged(
    row: Row, pipeline: StableDiffusionXLPipeline, prompt: str, small: Images, seed: int
) -> tuple[Images, int]:
    model = from_pipeline(
        pipeline,
        prompt,
        num_inference_steps=STEPS,
        guidance_scale=row.guidance,
        conditioning=row.conditioning,
        patch_prompts=row.patch_prompts,
    )
    given = {"batch_size": BATCH, "seed": seed, "patch_multiple": model.patch_multiple}
    config = JobConfig(**{"patch": model.patch, **given, **row.settings})
    side = SIDE * row.scale
    stages = plan_stages((SIDE, SIDE), (side, side), model.vae_scale_factor, row.stages)
    spec = JobSpec(sizes=tuple(stages), source_size=(SIDE, SIDE), config=config)
    result = Job(model, spec, MemoryStore(), image=small).run()
    return result.image.array, result.calls


def stored_row(folder: Path, row: Row, make: Callable[[], Generated]) -> Generated:
    """Return the images of a row from the folder, or generate and store them."""
    file = folder / f"{row.key.replace(' ', '-').replace(',', '')}.npz"
    if file.exists():
        with np.load(file) as stored:
            return Generated(stored["images"], float(stored["calls"]), float(stored["seconds"]))
    generated = make()
    with atomic_path(file) as part:
        np.savez(part, images=generated.images, calls=generated.calls, seconds=generated.seconds)
    return generated
