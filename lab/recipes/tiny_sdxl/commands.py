# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes sdxl``: render the pool, train the autoencoder, then the U-Net; ship; judge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from common_kernels.runtime.cli import OutputPath, emit, say
from cyclopts import Group, Parameter
from cyclopts.validators import Number
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from skimage.io import imsave

from recipes.cards import CARDS, read_card, weights_of
from recipes.gates import SEEDS, add_reading, fresh_seeds, mean, missed
from recipes.options import Accelerator, Debug, Flag, Processor
from recipes.probes.judging import WEIGHTS, Judge
from recipes.tiny_sdxl.assembly import (
    GUIDANCE,
    SHEET_PROMPTS,
    STEPS,
    generate_images,
    load_run,
    save,
    save_autoencoder,
)
from recipes.tiny_sdxl.assembly import sheet as lay_out
from recipes.tiny_sdxl.autoencoder import (
    AutoencoderOptions,
    linear_bound,
    psnr,
    reconstruct,
    train_autoencoder,
)
from recipes.tiny_sdxl.decoder import train_decoder
from recipes.tiny_sdxl.denoiser import RUN, DenoiserOptions, train_denoiser, write_latents
from recipes.tiny_sdxl.images import Kind, fill_pool, held_out_images, load_pool
from recipes.tiny_sdxl.judging import REQUIREMENTS, judge_pipeline
from recipes.tiny_sdxl.progress import AutoencoderPlan, DecoderPlan, DenoiserPlan

# each package carries its own copy, as none may need another; made when it ships
HOMES = tuple(
    Path(__file__).parents[3] / "packages" / package / "src" / package / "assets" / "tiny-sdxl"
    for package in ("pixelsmith", "diffeat")
)
ASSETS = HOMES[0]
CARD = CARDS / "tiny-sdxl.json"
STATEMENT = (
    "Trained on drawn scenes of the simple kind only, 64 pixels and a share of 128. It shows that methods "
    "work; what it generates is no measure of any published model."
)

_TRAINING = Parameter(name="*", group=Group("Training", sort_key=1))


def pool(
    *,
    output: OutputPath,
    count: int = 40_000,
    windows: int = 8_000,
    large: int = 4_000,
    workers: int = 2,
    debug: Debug = Debug(),
) -> None:
    """Render what is missing of the pool.

    Args:
        output: Folder of the run; pool, latents and checkpoints lie in it.
        count: Number of whole scenes of 64 pixels.
        windows: Number of windows of scenes twice and four times as large, each.
        large: Number of whole scenes of 128 pixels.
        workers: Number of processes.
    """
    counts = [("zoom2", windows), ("zoom4", windows), ("large", large), ("base", count)]
    fill_pool(output / "pool", counts, workers)


def bound(run: Path, /, *, debug: Debug = Debug()) -> None:
    """Say what the best linear codes of 4 x 4 blocks reach on this world.

    Args:
        run: Folder of the run.
    """
    images, tests = load_pool(run / "pool", "base", 1000), held_out_images(200)
    for channels in (4, 8, 12, 16):
        say(f"{channels} channels: {linear_bound(images, tests, channels):.2f} dB")


def vae(
    *,
    output: OutputPath,
    plan: Annotated[AutoencoderPlan, _TRAINING] = AutoencoderPlan(),
    options: Annotated[AutoencoderOptions, _TRAINING] = AutoencoderOptions(),
    processor: Processor = Processor(),
) -> None:
    """Train the autoencoder; run again to resume; ends with ``vae`` in the folder.

    Args:
        output: Folder of the run; pool, latents and checkpoints lie in it.
    """
    torch.set_num_threads(processor.threads)
    model = train_autoencoder(output / "vae-run", output / "pool", options, plan)
    model.save_pretrained(output / "vae")
    tests = held_out_images(200)
    emit({"psnr": psnr(reconstruct(model, tests), tests), "scaling_factor": model.config["scaling_factor"]})


def decoder(
    *,
    output: OutputPath,
    leaves: Path,
    init: Path | None = None,
    seed: int = 5,
    plan: Annotated[DecoderPlan, _TRAINING] = DecoderPlan(),
    processor: Processor = Processor(),
) -> None:
    """Train the decoder further for calm grounds and enlarged images; run again to resume.

    Args:
        output: Folder of the run; ``vae`` in it is replaced. Without a U-Net in it, the shipped pipeline is
            trained.
        leaves: Dead leaves, .npy, from 'restoration pool'.
        init: Folder of another autoencoder to begin with.
        seed: Random seed of the windows.
    """
    torch.set_num_threads(processor.threads)
    pipeline = load_run(output) if (output / RUN).exists() else _load(ASSETS)
    if init is not None:
        pipeline.vae = AutoencoderKL.from_pretrained(init, torch_dtype=torch.float32)
    train_decoder(output / "decoder-run", leaves, pipeline, plan, seed)
    pipeline.vae.save_pretrained(output / "vae")
    tests = held_out_images(200)
    emit({"psnr": psnr(reconstruct(pipeline.vae, tests), tests)})


def latents(*, output: OutputPath, windows: bool = True, machine: Accelerator = Accelerator()) -> None:
    """Encode and tokenise what is missing of the pool.

    Args:
        output: Folder of the run; pool, latents and checkpoints lie in it.
        windows: Also windows and 128 pixels, needed in the last steps only.
    """
    torch.set_num_threads(machine.threads)
    kinds: tuple[Kind, ...] = ("base", "zoom2", "zoom4", "large") if windows else ("base",)
    vae = AutoencoderKL.from_pretrained(output / "vae").to(torch.device(machine.device))
    write_latents(output, output / "pool", vae, kinds)


def unet(
    *,
    output: OutputPath,
    plan: Annotated[DenoiserPlan, _TRAINING] = DenoiserPlan(),
    options: Annotated[DenoiserOptions, _TRAINING] = DenoiserOptions(),
    processor: Processor = Processor(),
) -> None:
    """Train U-Net and text towers on the latents; run again to resume.

    Args:
        output: Folder of the run; pool, latents and checkpoints lie in it.
    """
    torch.set_num_threads(processor.threads)
    channels = AutoencoderKL.load_config(output / "vae")["latent_channels"]
    train_denoiser(output, channels, options, plan)


def ship(
    run: Path,
    /,
    *,
    folder: Path | None = None,
    sheet: Path | None = None,
    seed: int = 0,
    processor: Processor = Processor(),
) -> None:
    """Save the pipeline of a run as float16, load it again and generate samples with it.

    A run that trained no U-Net replaces the autoencoder of the shipped pipeline.

    Args:
        run: Folder of the run.
        folder: Folder for the pipeline; by default that of every package that ships it.
        sheet: Contact sheet of samples, PNG; by default in the run's folder.
        seed: Random seed of the samples.
    """
    torch.set_num_threads(processor.threads)
    first, *copies = HOMES if folder is None else (folder,)
    trained = (run / RUN).exists()
    size = save(load_run(run), first) if trained else save_autoencoder(run / "vae", first)
    for copy in copies:
        shutil.copytree(first, copy, dirs_exist_ok=True)
    sheet = run / "samples.png" if sheet is None else sheet
    _save_sheet(_load(first), sheet, seed)
    say(f"{first}: {size} bytes; samples in {sheet}")


def samples(
    run: Path, /, *, sheet: Path, side: int = 64, seed: int = 0, processor: Processor = Processor()
) -> None:
    """Generate samples of a run, finished or not.

    Args:
        run: Folder of the run.
        sheet: Contact sheet, PNG.
        side: Side of a sample in pixels.
        seed: Random seed of the samples.
    """
    torch.set_num_threads(processor.threads)
    _save_sheet(load_run(run), sheet, seed, side)


def _save_sheet(pipeline: StableDiffusionXLPipeline, file: Path, seed: int, side: int = 64) -> None:
    images = [generate_images(pipeline, SHEET_PROMPTS, seed=seed + i, side=side) for i in range(2)]
    rows = [part for i in range(0, len(SHEET_PROMPTS), 8) for image in images for part in image[i : i + 8]]
    imsave(file, lay_out(np.stack(rows), 8), check_contrast=False)


def _load(folder: Path) -> StableDiffusionXLPipeline:
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def judge(
    *,
    folder: Path = ASSETS,
    probe: Path = WEIGHTS,
    seed: int = 4000,
    seeds: int = SEEDS,
    count: Annotated[int, Parameter(validator=Number(gte=2))] = 70,
    training: Path | None = None,
    write: Flag = False,
    processor: Processor = Processor(),
) -> int:
    """Measure the shipped pipeline on fresh seeds; exit 1 if it misses a requirement at its 95 % bound.

    Args:
        folder: Folder of the shipped pipeline.
        probe: Weights of the frozen probe.
        seed: First random seed of prompts, noise and test scenes.
        seeds: Number of seeds.
        count: Number of prompts of one thing, for each seed.
        training: JSON with how it was trained, for the card.
        write: Write the card.
    """
    torch.set_num_threads(processor.threads)
    pipeline, drawn = _load(folder), fresh_seeds(seed, seeds)
    seen_by = Judge.load(probe)
    runs = [judge_pipeline(pipeline, seen_by, seed=each, count=count, report=say) for each in drawn]
    misses, before = missed(REQUIREMENTS, runs), read_card(CARD, training)
    weights = weights_of(folder)
    digest = weights["sha256"]["unet/diffusion_pytorch_model.safetensors"]
    card = before | {
        **weights,
        "parameters": {
            name: sum(weight.numel() for weight in getattr(pipeline, name).parameters())
            for name in ("unet", "vae", "text_encoder", "text_encoder_2")
        },
        "statement": STATEMENT,
        "judged_on": {"seeds": drawn, "count": count, "steps": STEPS, "guidance": GUIDANCE},
        "requirements": [str(each) for each in REQUIREMENTS],
        "figures": mean(runs),
        "missed": misses,
        "passed": not misses,
        "readings": add_reading(before, seeds=drawn, digest=digest, misses=misses),
    }
    text = json.dumps(card, indent=2)
    say(text)
    if write:
        CARD.write_text(text + "\n", "utf-8")
    return int(bool(misses))
