# SPDX-License-Identifier: Apache-2.0
"""Puts the trained parts together as a diffusers pipeline, saves it, and generates a sheet of samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from diffusers.models.attention_processor import AttnProcessor2_0
from numpy.typing import NDArray

from recipes.cards import folder_size
from recipes.tiny_sdxl.denoiser import Denoiser, DenoiserOptions, build_scheduler, load_denoiser
from recipes.tiny_sdxl.progress import numbered_generator

SIZE_LIMIT = 8_000_000  # bytes of the whole folder
STEPS, GUIDANCE = 20, 4.0  # of the sampling that sheets and figures use
SHEET_PROMPTS = (
    "a red circle",
    "a green square",
    "a blue star",
    "a yellow triangle",
    "a purple ring",
    "a white heart on waves",
    "an orange crescent",
    "a black cross",
    "a striped cyan circle on clouds",
    "a checked pink square on a gradient",
    "a red circle and a blue square",
    "a green triangle and a white star",
    "a yellow cross and a purple heart",
    "a black ring and an orange circle on waves",
    "a red heart and a green circle and a blue cross",
    "",
)


def assemble(vae: AutoencoderKL, denoiser: Denoiser) -> StableDiffusionXLPipeline:
    """Return the pipeline of the trained parts, in their precision."""
    denoiser.unet.set_attn_processor(AttnProcessor2_0())
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=denoiser.text_encoder,
        text_encoder_2=denoiser.text_encoder_2,
        tokenizer=denoiser.tokenizers[0],
        tokenizer_2=denoiser.tokenizers[1],
        unet=denoiser.unet,
        scheduler=build_scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    for part in (vae, denoiser):
        part.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_run(run: Path) -> StableDiffusionXLPipeline:
    """Return the pipeline of a run's mean weights, finished or not, in float32.

    Args:
        run: Folder with ``vae`` and ``unet-run``.
    """
    vae = AutoencoderKL.from_pretrained(run / "vae")
    return assemble(vae, load_denoiser(run, DenoiserOptions(), vae.config["latent_channels"]))


def save(pipeline: StableDiffusionXLPipeline, folder: Path) -> int:
    """Save a pipeline as float16 safetensors and return the bytes of the folder.

    Args:
        pipeline: The pipeline; its parts become float16.
        folder: Where.

    Raises:
        ValueError: If the folder is larger than ``SIZE_LIMIT``.
    """
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    for name in ("tokenizer", "tokenizer_2"):
        _write_plain_words(folder / name)
    for name in ("text_encoder", "text_encoder_2"):
        _edit(folder / name / "config.json", dtype="float32")  # as diffusers loads the other parts
    _edit(folder / "vae" / "config.json", _name_or_path=None)  # the folder of the run
    size = folder_size(folder)
    if size > SIZE_LIMIT:
        raise ValueError(f"the folder must hold at most {SIZE_LIMIT} bytes, got {size}")
    return size


def save_autoencoder(vae: Path, folder: Path) -> int:
    """Save an autoencoder as float16 in the folder of a saved pipeline, and return the bytes of all.

    Args:
        vae: Folder of the autoencoder.
        folder: Folder of the pipeline.
    """
    AutoencoderKL.from_pretrained(vae, torch_dtype=torch.float16).save_pretrained(folder / "vae")
    _edit(folder / "vae" / "config.json", _name_or_path=None)
    return folder_size(folder)


def _write_plain_words(folder: Path) -> None:
    """Write vocabulary and merges for readers that do not know ``tokenizer.json``."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = [" ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]))


def _edit(file: Path, **changes: str | None) -> None:
    """Set entries of a configuration; ``None`` removes one."""
    config = {**json.loads(file.read_text()), **changes}
    kept = {key: value for key, value in config.items() if key not in changes or value is not None}
    file.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


def generate_images(
    pipeline: StableDiffusionXLPipeline,
    prompts: Sequence[str],
    *,
    seed: int,
    side: int = 64,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    batch_size: int = 16,
) -> NDArray[np.uint8]:
    """Generate one image per prompt, ``(B, side, side, 3)`` uint8.

    Args:
        pipeline: Pipeline that generates.
        prompts: Prompts.
        seed: Image ``i`` starts from noise drawn from ``seed`` and ``i``.
        side: Pixels.
        steps: Number of inference steps.
        guidance: Scale of the guidance.
        batch_size: Prompts at once.
    """
    parts: list[NDArray[np.uint8]] = []
    for start in range(0, len(prompts), batch_size):
        chosen = list(prompts[start : start + batch_size])
        numbers = range(start, start + len(chosen))
        images = pipeline(
            prompt=chosen,
            height=side,
            width=side,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=[numbered_generator(seed, number) for number in numbers],
            output_type="np",
        ).images
        parts.append((cast(NDArray[np.float32], images) * 255).round().astype(np.uint8))
    return np.concatenate(parts)


def sheet(images: NDArray[np.uint8], columns: int, gap: int = 4) -> NDArray[np.uint8]:
    """Lay images ``(B, H, W, 3)`` out in rows on white."""
    B, H, W, _ = images.shape
    rows = -(-B // columns)
    result = np.full((rows * (H + gap) + gap, columns * (W + gap) + gap, 3), 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = gap + i // columns * (H + gap), gap + i % columns * (W + gap)
        result[top : top + H, left : left + W] = image
    return result
