# SPDX-License-Identifier: Apache-2.0
"""Measures the shipped denoiser on photographs and writes its card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from semanir import SemanIR
from semanir.weights import find_folder
from torch import nn

from recipes.baselines import bm3d, non_local_means, total_variation
from recipes.conv_unet import ConvUNet
from recipes.photos import COLOUR, GREY, noisy, psnr

SIGMAS = (15, 25, 50)
MEAN_GAIN = {15: 1.2, 25: 1.6, 50: 1.8}  # dB over the better classical baseline, colour photographs
WORST_LOSS = 0.2  # dB that a single photograph may lose
CLEAN_FLOOR = 40.0  # dB that every clean photograph must keep
CARDS = Path(__file__).parents[1] / "cards"
CAVEAT = (
    "Trained on synthetic dead leaves only. Judged on 11 photographs, so the figures do not compare with "
    "published tables. White Gaussian noise only: real camera noise is not covered."
)

Image = NDArray[np.floating]
Denoiser = Callable[[Image, float], Image]
Photos = Mapping[str, Callable[[], NDArray[np.uint8]]]
Figures = dict[str, dict[str, dict[str, float]]]  # photograph -> sigma -> method -> dB


def as_denoiser(network: nn.Module) -> Denoiser:
    """Wrap a blind colour network; a grey image goes through it as three equal channels."""

    def denoise(image: Image, _sigma: float) -> Image:
        colour = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=-1)
        x = torch.from_numpy(np.ascontiguousarray(colour.transpose(2, 0, 1))).float()[None]
        with torch.inference_mode():
            out = network(x)[0].permute(1, 2, 0).numpy()  # (H, W, 3)
        return out if image.ndim == 3 else out.mean(axis=-1)

    return denoise


def measure(methods: Mapping[str, Denoiser], photos: Photos) -> Figures:
    """Return the PSNR in dB of every method on every photograph and noise level, noise seed 0."""
    figures: Figures = {}
    for name, load in photos.items():
        photo = load()
        figures[name] = {}
        for sigma in SIGMAS:
            image = noisy(photo, sigma)
            row = {"noisy": psnr(image, photo)}
            row.update({key: psnr(method(image, sigma), photo) for key, method in methods.items()})
            figures[name][str(sigma)] = {key: round(value, 3) for key, value in row.items()}
    return figures


def clean_psnr(denoise: Denoiser, photos: Photos) -> dict[str, float]:
    """Return what is left of each clean photograph, PSNR in dB."""
    result: dict[str, float] = {}
    for name, load in photos.items():
        photo = load()
        result[name] = round(psnr(denoise(photo / 255, 0), photo), 3)
    return result


def verdicts(figures: Figures, clean: Mapping[str, float], method: str) -> dict[str, object]:
    """Hold a method against the gate.

    Args:
        figures: Of the colour photographs, with ``"nlm"``, ``"tv"`` and the method.
        clean: What the method leaves of clean photographs, dB.
        method: Name of the method in ``figures``.

    Returns:
        Mean gain over the better baseline per noise level, largest loss on one photograph, worst clean
        photograph, and whether all hold.
    """
    gains: dict[str, float] = {}
    for sigma in map(str, SIGMAS):
        nlm, tv, ours = (
            np.mean([rows[sigma][key] for rows in figures.values()]) for key in ("nlm", "tv", method)
        )
        gains[sigma] = round(float(ours - max(nlm, tv)), 3)
    losses = [max(row["nlm"], row["tv"]) - row[method] for rows in figures.values() for row in rows.values()]
    holds = (
        all(gains[str(sigma)] >= wanted for sigma, wanted in MEAN_GAIN.items())
        and max(losses) <= WORST_LOSS
        and min(clean.values()) >= CLEAN_FLOOR
    )
    return {
        "mean_gain_db": gains,
        "largest_loss_db": round(float(max(losses)), 3),
        "worst_clean_db": min(clean.values()),
        "passed": holds,
    }


def bm3d_figures() -> dict[str, dict[str, float]]:
    """Return BM3D's PSNR on the colour photographs, kept in a file since it takes a quarter of an hour."""
    file = CARDS / "bm3d.json"
    figures: dict[str, dict[str, float]] = json.loads(file.read_text()) if file.exists() else {}
    for name, load in COLOUR.items():
        row = figures.setdefault(name, {})
        for sigma in SIGMAS:
            if str(sigma) not in row:
                photo = load()
                row[str(sigma)] = round(psnr(bm3d(noisy(photo, sigma), sigma), photo), 3)
                file.write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def judge(
    model: Annotated[str, typer.Argument(help="Shipped name or folder.")] = "tiny-denoise",
    conv: Annotated[Path | None, typer.Option(help="Weights of the convolutional baseline.")] = None,
    with_bm3d: Annotated[bool, typer.Option(help="Fill in missing BM3D figures; slow.")] = False,
    write: Annotated[bool, typer.Option(help="Bring the figures of the card up to date.")] = False,
) -> None:
    """Measure a denoiser on photographs; exit 1 if it misses its gate."""
    methods: dict[str, Denoiser] = {
        "tv": total_variation,
        "nlm": non_local_means,
        "semanir": as_denoiser(SemanIR.from_pretrained(model, device="cpu")),
    }
    if conv is not None:
        network = ConvUNet()
        network.load_state_dict(load_file(conv))
        methods["conv"] = as_denoiser(network.eval())
    colour, grey = measure(methods, COLOUR), measure(methods, GREY)
    clean = clean_psnr(methods["semanir"], COLOUR)
    verdict = verdicts(colour, clean, "semanir")
    report: dict[str, object] = {"gate": verdict, "colour": colour, "grey": grey, "clean": clean}
    if conv is not None:
        conv_clean = clean_psnr(methods["conv"], COLOUR)
        report["gate_conv"] = verdicts(colour, conv_clean, "conv")
        report["clean_conv"] = conv_clean
    if with_bm3d or (CARDS / "bm3d.json").exists():
        report["bm3d"] = bm3d_figures() if with_bm3d else json.loads((CARDS / "bm3d.json").read_text())
    Console(stderr=True).print(_table(colour, grey))
    typer.echo(json.dumps({"model": model, **verdict}))
    if write:
        _write_card(model, report)
    if not verdict["passed"]:
        raise typer.Exit(1)


def _table(colour: Figures, grey: Figures) -> Table:
    methods = list(next(iter(colour.values()))[str(SIGMAS[0])])
    table = Table("photograph", "sigma", *methods, title="PSNR, dB")
    for figures in (colour, grey):
        for name, rows in figures.items():
            for sigma, row in rows.items():
                table.add_row(name, sigma, *(f"{row[key]:.2f}" for key in methods))
        for sigma in map(str, SIGMAS):
            means = [np.mean([rows[sigma][key] for rows in figures.values()]) for key in methods]
            table.add_row("mean", sigma, *(f"{mean:.2f}" for mean in means), style="bold")
    return table


def _write_card(model: str, report: Mapping[str, object]) -> None:
    """Merge figures and file facts into the card; how the model was trained stays as it stands there."""
    weights = find_folder(model) / "model.safetensors"
    file = CARDS / f"{model}.json"
    card: dict[str, object] = json.loads(file.read_text()) if file.exists() else {"name": model}
    card["caveat"] = CAVEAT
    card["bytes"] = weights.stat().st_size
    card["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    card["figures"] = report
    file.write_text(json.dumps(card, indent=2) + "\n")
