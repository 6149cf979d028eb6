# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes sdxl``: paint the pool, train the autoencoder, then the U-Net; ship; judge."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from skimage.io import imsave

from recipes.cards import CARDS
from recipes.probes.judging import WEIGHTS, Judge
from recipes.tiny_sdxl.assembly import GUIDANCE, SHEET_PROMPTS, STEPS, load_run, paint_prompts, save, sheet
from recipes.tiny_sdxl.autoencoder import (
    AutoencoderOptions,
    linear_bound,
    psnr,
    reconstruct,
    train_autoencoder,
)
from recipes.tiny_sdxl.denoiser import DenoiserOptions, train_denoiser, write_latents
from recipes.tiny_sdxl.images import Kind, fill_pool, held_out_images, load_pool
from recipes.tiny_sdxl.judging import judge_pipeline, missed
from recipes.tiny_sdxl.progress import OptimizerName, Plan

app = typer.Typer(help=__doc__, no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="Folder of the run; pool, latents and checkpoints lie in it.")]
# each package carries its own copy, as none may need another; made when it ships
HOMES = tuple(
    Path(__file__).parents[3] / "packages" / package / "src" / package / "assets" / "tiny-sdxl"
    for package in ("pixelsmith", "diffeat")
)
ASSETS = HOMES[0]
CARD = CARDS / "tiny-sdxl.json"
STATEMENT = (
    "Trained on drawn scenes of the simple kind only, 64 pixels and a share of 128. It shows that methods "
    "work; what it paints is no measure of any published model."
)

Threads = Annotated[int, typer.Option(help="CPU threads.")]
Device = Annotated[str, typer.Option(help="Device: cpu, cuda or cuda:1.")]
# 2.5 times slower on processors without matrix instructions for it
Half = Annotated[bool, typer.Option(help="Compute in bfloat16; for processors that multiply in it (AMX).")]


@app.command()
def pool(
    out: Out,
    count: Annotated[int, typer.Option(help="Whole scenes of 64 pixels.")] = 40_000,
    windows: Annotated[
        int, typer.Option(help="Windows of scenes twice and four times as large, each.")
    ] = 8_000,
    large: Annotated[int, typer.Option(help="Whole scenes of 128 pixels.")] = 4_000,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
) -> None:
    """Paint what is missing of the pool."""
    counts = [("zoom2", windows), ("zoom4", windows), ("large", large), ("base", count)]
    fill_pool(out / "pool", counts, workers)


@app.command()
def bound(out: Out) -> None:
    """Say what the best linear codes of 4 x 4 blocks reach on this world."""
    images, tests = load_pool(out / "pool", "base", 1000), held_out_images(200)
    for channels in (4, 8, 12, 16):
        typer.echo(f"{channels} channels: {linear_bound(images, tests, channels):.2f} dB")


@app.command()
def vae(
    out: Out,
    steps: Annotated[int, typer.Option(help="Optimizer steps in all; may change on resume.")] = 12_000,
    decay_steps: Annotated[int, typer.Option(help="Last steps, with falling learning rate.")] = 4_000,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    optimizer: Annotated[
        OptimizerName, typer.Option(help="Optimizer of matrices and convolutions.")
    ] = "muon",
    latent_channels: Annotated[int, typer.Option(help="Channels of a latent cell.")] = 8,
    seed: Annotated[int, typer.Option(help="Random seed of weights and crops.")] = 0,
    half: Half = False,
    threads: Threads = 1,
    device: Device = "cpu",
) -> None:
    """Train the autoencoder; run again to resume; ends with ``vae`` in the folder."""
    torch.set_num_threads(threads)
    options = AutoencoderOptions(latent_channels=latent_channels, seed=seed, half=half)
    plan = Plan(
        steps=steps,
        decay_steps=decay_steps,
        learning_rate=learning_rate,
        optimizer=optimizer,
        device=device,
    )
    model = train_autoencoder(out / "vae-run", out / "pool", options, plan)
    model.save_pretrained(out / "vae")
    tests = held_out_images(200)
    figures = {
        "psnr": psnr(reconstruct(model, tests), tests),
        "scaling_factor": model.config["scaling_factor"],
    }
    typer.echo(json.dumps(figures))


@app.command()
def latents(
    out: Out,
    windows: Annotated[
        bool, typer.Option(help="Also windows and 128 pixels, needed in the last steps only.")
    ] = True,
    threads: Threads = 1,
    device: Device = "cpu",
) -> None:
    """Encode and tokenise what is missing of the pool."""
    torch.set_num_threads(threads)
    kinds: tuple[Kind, ...] = ("base", "zoom2", "zoom4", "large") if windows else ("base",)
    vae = AutoencoderKL.from_pretrained(out / "vae").to(torch.device(device))
    write_latents(out, out / "pool", vae, kinds)


@app.command()
def unet(
    out: Out,
    steps: Annotated[int, typer.Option(help="Optimizer steps in all; may change on resume.")] = 12_000,
    decay_steps: Annotated[int, typer.Option(help="Last steps, with falling learning rate.")] = 3_000,
    window_steps: Annotated[int, typer.Option(help="Last steps, with windows of larger scenes.")] = 3_000,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    optimizer: Annotated[
        OptimizerName, typer.Option(help="Optimizer of matrices and convolutions.")
    ] = "muon",
    ema_decay: Annotated[float, typer.Option(help="Decay of the running mean of the weights.")] = 0.999,
    seed: Annotated[int, typer.Option(help="Random seed of weights, noise and choice.")] = 0,
    half: Half = False,
    threads: Threads = 1,
    device: Device = "cpu",
) -> None:
    """Train U-Net and text towers on the latents; run again to resume."""
    torch.set_num_threads(threads)
    channels = AutoencoderKL.load_config(out / "vae")["latent_channels"]
    options = DenoiserOptions(batch_size=batch_size, window_steps=window_steps, seed=seed, half=half)
    plan = Plan(
        steps=steps,
        decay_steps=decay_steps,
        learning_rate=learning_rate,
        optimizer=optimizer,
        ema_decay=ema_decay,
        save_every=250,
        log_every=50,
        device=device,
    )
    train_denoiser(out, channels, options, plan)


@app.command()
def ship(
    out: Out,
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder for the pipeline; by default that of every package that ships it."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--sheet", help="Contact sheet of samples, PNG; by default in the run's folder."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the samples.")] = 0,
    threads: Threads = 1,
) -> None:
    """Save the pipeline of a run as float16, load it again and paint samples with it."""
    torch.set_num_threads(threads)
    first, *copies = HOMES if folder is None else (folder,)
    size = save(load_run(out), first)
    for copy in copies:
        shutil.copytree(first, copy, dirs_exist_ok=True)
    file = out / "samples.png" if file is None else file
    _paint_sheet(_load(first), file, seed)
    typer.echo(f"{first}: {size} bytes; samples in {file}")


@app.command()
def samples(
    out: Out,
    file: Annotated[Path, typer.Option("--sheet", help="Contact sheet, PNG.")],
    side: Annotated[int, typer.Option(help="Pixels of a sample.")] = 64,
    seed: Annotated[int, typer.Option(help="Random seed of the samples.")] = 0,
    threads: Threads = 1,
) -> None:
    """Paint samples of a run, finished or not."""
    torch.set_num_threads(threads)
    _paint_sheet(load_run(out), file, seed, side)


def _paint_sheet(pipeline: StableDiffusionXLPipeline, file: Path, seed: int, side: int = 64) -> None:
    images = [paint_prompts(pipeline, SHEET_PROMPTS, seed=seed + i, side=side) for i in range(2)]
    rows = [part for i in range(0, len(SHEET_PROMPTS), 8) for image in images for part in image[i : i + 8]]
    imsave(file, sheet(np.stack(rows), 8), check_contrast=False)


def _load(folder: Path) -> StableDiffusionXLPipeline:
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@app.command()
def judge(
    folder: Annotated[Path, typer.Option(help="The shipped pipeline.")] = ASSETS,
    probe: Annotated[Path, typer.Option(help="Weights of the frozen probe.")] = WEIGHTS,
    seed: Annotated[int, typer.Option(help="Random seed of prompts, noise and test scenes.")] = 4000,
    count: Annotated[int, typer.Option(min=2, help="Prompts of one thing.")] = 200,
    training: Annotated[Path | None, typer.Option(help="JSON with how it was trained, for the card.")] = None,
    write: Annotated[bool, typer.Option(help="Write the card.")] = False,
    threads: Threads = 1,
) -> None:
    """Measure the shipped pipeline on fresh seeds; exit 1 if it misses a must."""
    torch.set_num_threads(threads)
    pipeline = _load(folder)
    figures = judge_pipeline(pipeline, Judge.load(probe), seed=seed, count=count, tell=typer.echo)
    misses = missed(figures)
    card: dict[str, Any] = json.loads(CARD.read_text("utf-8")) if CARD.exists() else {"name": "tiny-sdxl"}
    if training is not None:
        card["training"] = json.loads(training.read_text("utf-8"))
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    card |= {
        "bytes": sum(file.stat().st_size for file in files),
        "sha256": {
            str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in files
            if file.suffix == ".safetensors"
        },
        "parameters": {
            name: sum(weight.numel() for weight in getattr(pipeline, name).parameters())
            for name in ("unet", "vae", "text_encoder", "text_encoder_2")
        },
        "statement": STATEMENT,
        "judged_on": {"seed": seed, "count": count, "steps": STEPS, "guidance": GUIDANCE},
        "figures": figures,
        "missed": misses,
        "passed": not misses,
    }
    text = json.dumps(card, indent=2)
    typer.echo(text)
    if write:
        CARD.write_text(text + "\n", "utf-8")
    if misses:
        raise typer.Exit(1)
