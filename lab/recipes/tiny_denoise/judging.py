# SPDX-License-Identifier: Apache-2.0
"""Holds the shipped denoiser against its gate on photographs, and writes its card, losses included."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from common_kernels.runtime.cli import emit, progress_bars, stderr
from common_kernels.runtime.files import write_json
from common_kernels.runtime.hub import CARD_FILE, WEIGHTS_FILE
from numpy.typing import NDArray
from rich.table import Table
from safetensors.torch import load_file
from semanir.restorer import Restorer
from semanir.weights import SHIPPED, find_folder

from recipes.cards import CARDS
from recipes.options import Flag, Processor
from recipes.tiny_denoise.baselines import EQUAL_DB, Figures, baseline_figures, bm3d_figures, score
from recipes.tiny_denoise.conv_unet import ConvUNet
from recipes.tiny_denoise.gate import CAVEAT, CLEAN_FLOOR, MEAN_GAIN, SIGMAS, WORST_LOSS
from recipes.tiny_denoise.photographs import COLOUR, GREY, noisy, psnr

Pixels = NDArray[np.float32]
Model = Callable[[Pixels], Pixels]  # (H, W, C) in and out, C of 1 or 3, nominally in [0, 1], blind
Photos = Mapping[str, Callable[[], NDArray[np.uint8]]]
Clean = dict[str, dict[str, float]]  # photograph -> model -> dB

CLASSICAL = ("tv", "nlm")
TRAINING = ("recipe_commit", "seed", "device", "training_minutes", "patches_seen")


class Verdict(TypedDict):
    """What the gate says of one model.

    Attributes:
        mean_gain_db: Per noise level, mean over the colour photographs of the gain over the better of total
            variation and non-local means.
        largest_loss_db: Against the better of the two, on any one photograph at any noise level.
        worst_clean_db: PSNR of the restored clean photograph that suffers most.
        failures: A sentence for each thing that misses its threshold.
        passed: Whether there is no failure.
    """

    mean_gain_db: dict[str, float]
    largest_loss_db: float
    worst_clean_db: float
    failures: list[str]
    passed: bool


def measure(models: Mapping[str, Model], photos: Photos, baselines: Figures) -> tuple[Figures, Clean]:
    """Measure models on noisy and on clean photographs, noise seed 0, output rounded to 8 bits.

    Args:
        models: Blind denoisers by name.
        photos: Name and loader of each photograph, ``(H, W)`` or ``(H, W, 3)`` uint8.
        baselines: Scores to put beside those of the models, from :func:`baseline_figures`.

    Returns:
        PSNR in dB and SSIM of baselines and models, and the PSNR in dB of every model's output for the clean
        photographs, at most 100 dB.

    Raises:
        ValueError: If an output has another shape than the input or is not finite.
    """
    figures: Figures = {}
    clean: Clean = {name: {} for name in photos}
    cases = [(name, sigma) for name in photos for sigma in (0, *SIGMAS)]
    with progress_bars() as bars:
        for name, sigma in bars.track(cases, description="photographs"):
            photo = photos[name]()
            image = noisy(photo, sigma)
            results = {key: _run(key, model, image) for key, model in models.items()}
            if sigma == 0:
                levels = {key: psnr(result, photo) for key, result in results.items()}
                clean[name] = {key: round(min(level, EQUAL_DB), 3) for key, level in levels.items()}
            else:
                row = {key: score(result, photo) for key, result in results.items()}
                figures.setdefault(name, {})[str(sigma)] = {**baselines[name][str(sigma)], **row}
    return figures, clean


def _run(name: str, model: Model, image: NDArray[np.floating]) -> Pixels:
    pixels = np.atleast_3d(image).astype(np.float32)
    result = model(pixels)
    if result.shape != pixels.shape:
        raise ValueError(f"model {name!r} must keep the shape {pixels.shape}, got {result.shape}")
    if not np.isfinite(result).all():
        raise ValueError(f"model {name!r} must give finite pixels, got NaN or infinity")
    return result.reshape(image.shape)


def verdict(figures: Figures, clean: Clean, model: str, colour: Collection[str]) -> Verdict:
    """Hold a model against the gate.

    Args:
        figures: With ``"tv"``, ``"nlm"`` and the model.
        clean: PSNR of restored clean photographs.
        model: Name of the model in both.
        colour: Photographs that the mean gain is taken over; the other two rules hold for every photograph.
    """
    margins = {
        (name, sigma): row[model]["psnr"] - max(row[key]["psnr"] for key in CLASSICAL)
        for name, rows in figures.items()
        for sigma, row in rows.items()
    }
    gains = {
        sigma: round(float(np.mean([margins[name, sigma] for name in figures if name in colour])), 3)
        for sigma in map(str, SIGMAS)
    }
    failures = [
        f"sigma {sigma}: mean gain {gains[str(sigma)]:+.2f} dB, wanted {wanted:+.2f} dB"
        for sigma, wanted in MEAN_GAIN.items()
        if gains[str(sigma)] < wanted
    ]
    failures += [
        f"{name}, sigma {sigma}: {-margin:.2f} dB lost, allowed {WORST_LOSS} dB"
        for (name, sigma), margin in margins.items()
        if round(-margin, 3) > WORST_LOSS
    ]
    failures += [
        f"{name}, clean: {row[model]:.2f} dB left, wanted {CLEAN_FLOOR} dB"
        for name, row in clean.items()
        if row[model] < CLEAN_FLOOR
    ]
    return {
        "mean_gain_db": gains,
        "largest_loss_db": round(max(0.0, -min(margins.values())), 3),
        "worst_clean_db": min(row[model] for row in clean.values()),
        "failures": failures,
        "passed": not failures,
    }


def losses(figures: Figures, model: str) -> list[dict[str, object]]:
    """List where another method does better than the model, and by how much; nothing is omitted."""
    return [
        {"photo": name, "sigma": int(sigma), "measure": measure, "to": key, "by": round(value - ours, 4)}
        for name, rows in figures.items()
        for sigma, row in rows.items()
        for measure, ours in row[model].items()
        for key, scores in row.items()
        if key not in (model, "noisy") and (value := scores.get(measure, ours)) > ours
    ]


def means(figures: Figures) -> dict[str, dict[str, dict[str, float]]]:
    """Average over photographs: sigma, method, measure; a method that misses a photograph has no mean."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    for sigma in map(str, SIGMAS):
        rows = [photo[sigma] for photo in figures.values()]
        shared = [key for key in rows[0] if all(key in row for row in rows)]
        result[sigma] = {
            key: {part: round(float(np.mean([row[key][part] for row in rows])), 4) for part in rows[0][key]}
            for key in shared
        }
    return result


def conv_model(weights: Path) -> Model:
    """Load the convolutional network that stands beside ours; grey goes through it as three channels."""
    network = ConvUNet()
    network.load_state_dict(load_file(weights))
    network = network.to(memory_format=torch.channels_last).eval()

    def denoise(image: Pixels) -> Pixels:
        x = torch.from_numpy(image).permute(2, 0, 1)[None].expand(-1, 3, -1, -1)
        with torch.inference_mode():
            out = network(x)[0].permute(1, 2, 0).numpy()  # (H, W, 3)
        return out if image.shape[2] == 3 else out.mean(axis=-1, keepdims=True)

    return denoise


def make_card(
    name: str, weights: Path, parameters: int, figures: Figures, clean: Clean, training: Mapping[str, object]
) -> dict[str, object]:
    """Return the card of the model that ``figures`` call ``"semanir"``.

    Args:
        name: Name of the model.
        weights: The file that was judged.
        parameters: Numbers in it.
        figures: Figures of all photographs.
        clean: PSNR of all restored clean photographs.
        training: Facts about its training, with the keys of ``TRAINING``; ``None`` stands for unknown.
    """
    colour = {name: figures[name] for name in figures if name in COLOUR}
    grey = {name: figures[name] for name in figures if name in GREY}
    rivals = [key for key in next(iter(clean.values())) if key != "semanir"]
    return {
        "name": name,
        "file": f"{name}/{weights.name}",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "bytes": weights.stat().st_size,
        "parameters": parameters,
        **{key: training.get(key) for key in TRAINING},
        "statement": CAVEAT,
        "gate": verdict(figures, clean, "semanir", COLOUR),
        "gates_of_others": {key: verdict(figures, clean, key, COLOUR) for key in rivals},
        "means": {"colour": means(colour), "grey": means(grey)},
        "figures": {"colour": colour, "grey": grey, "clean": clean},
        "losses": losses(figures, "semanir"),
    }


def summary(card: Mapping[str, object], result: Verdict) -> dict[str, object]:
    """Return the few facts that travel with the weights, for ``semanir models``."""
    return {
        "task": "takes white Gaussian noise of unknown strength out of photographs",
        "parameters": card["parameters"],
        "mean_gain_db": result["mean_gain_db"],
        "statement": card["statement"],
    }


def _read_training(file: Path | None, card: Path) -> dict[str, object]:
    """Read how the model was made from a file of its own, else from the card that is there."""
    source = card if file is None else file
    if not source.exists():
        return {}
    facts: dict[str, object] = json.loads(source.read_text("utf-8"))
    if file is not None and (unknown := sorted(set(facts) - set(TRAINING))):
        raise ValueError(f"{file} may hold {', '.join(TRAINING)}, got {', '.join(unknown)}")
    return {key: facts[key] for key in TRAINING if key in facts}


def _table(figures: Figures) -> Table:
    methods = list(next(iter(figures.values()))[str(SIGMAS[0])])
    table = Table("photograph", "sigma", *methods, title="PSNR, dB")
    for name, rows in figures.items():
        for sigma, row in rows.items():
            table.add_row(name, sigma, *(f"{row[key]['psnr']:.2f}" if key in row else "-" for key in methods))
    return table


def judge(
    model: str = "tiny-denoise",
    /,
    *,
    card: Path | None = None,
    conv: Path | None = None,
    with_bm3d: Flag = False,
    training: Path | None = None,
    processor: Processor = Processor(),
) -> int:
    """Measure a denoiser on eleven photographs; exit 1 if it misses its gate.

    Args:
        model: Shipped name or folder.
        card: Card to write.
        conv: Weights of the convolutional baseline, from the command 'train conv'.
        with_bm3d: Fill in missing BM3D figures; slow.
        training: JSON of how it was made: recipe_commit, seed, device, training_minutes, patches_seen.
    """
    torch.set_num_threads(processor.threads)
    name = Path(model).name
    facts = _read_training(training, CARDS / f"{name}.json")
    restorer = Restorer.from_pretrained(model, device="cpu", dtype="float32")
    models: dict[str, Model] = {"semanir": restorer.restore}
    if conv is not None:
        models["conv"] = conv_model(conv)
    photos = {**COLOUR, **GREY}
    figures, clean = measure(models, photos, baseline_figures(photos, SIGMAS, CARDS / "baselines.json"))
    known = bm3d_figures() if with_bm3d else _stored_bm3d()
    for photo, rows in known.items():
        for sigma, level in rows.items():
            figures[photo][sigma]["bm3d"] = {"psnr": level}
    parameters = sum(p.numel() for p in restorer.model.parameters())
    report = make_card(name, find_folder(model) / WEIGHTS_FILE, parameters, figures, clean, facts)
    stderr.print(_table(figures))
    result = verdict(figures, clean, "semanir", COLOUR)
    emit({"model": name, **result})
    if card is not None:
        write_json(card, report)
        if name in SHIPPED.names():
            write_json(SHIPPED.folder(name) / CARD_FILE, summary(report, result))
    return int(not result["passed"])


def _stored_bm3d() -> dict[str, dict[str, float]]:
    file = CARDS / "bm3d.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else {}
