# SPDX-License-Identifier: Apache-2.0
"""Evaluates the shipped models on photographs, against their requirements, and writes their cards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from common_kernels.runtime.cli import emit, progress_bars, stderr
from common_kernels.runtime.files import write_json
from common_kernels.runtime.hub import CARD_FILE, WEIGHTS_FILE
from numpy.typing import NDArray
from rich.table import Table
from semanir.degradations import resize_bicubic
from semanir.restorer import Restorer
from semanir.weights import SHIPPED
from torch import nn

from recipes.cards import CARDS
from recipes.gates import SEEDS, fresh_seeds, mean
from recipes.options import Flag, Processor
from recipes.restoration.baselines import (
    Figures,
    Photos,
    baseline_figures,
    bm3d_figures,
    measure_baselines,
    photos_of,
    score,
)
from recipes.restoration.conditions import CONDITIONS, REQUIREMENTS, Condition
from recipes.restoration.conv_unet import ConvUNet
from recipes.restoration.networks import load_run
from recipes.restoration.photographs import COLOUR, FURTHER, GREY
from recipes.restoration.tasks import TASKS, TaskName
from recipes.restoration.verdicts import losses, mean_gain, means, verdict

Pixels = NDArray[np.float32]
Model = Callable[[Pixels], Pixels]  # (H, W, C) in and out, C of 1 or 3, nominally in [0, 1], blind

OURS = "semanir"  # the judged network's name in figures
TRAINING = ("recipe_commit", "seed", "device", "training_minutes", "patches_seen", "begun_from")
DATA = (
    "Trained on synthetic dead leaves only. Judged on {count} photographs, so the figures do not compare "
    "with published tables. {limits}"
)


def measure(
    models: Mapping[str, Model], photos: Photos, conditions: tuple[Condition, ...], seed: int | None = None
) -> Figures:
    """Measure models on degraded photographs, output rounded to 8 bits.

    Args:
        models: Blind networks by name.
        photos: Name and loader of each photograph, ``(H, W)`` or ``(H, W, 3)`` uint8.
        conditions: How they are degraded.
        seed: Random seed of the degradations; by default that of the cards.

    Returns:
        PSNR in dB, at most 100, and SSIM of every model, photograph and condition.

    Raises:
        ValueError: If an output has another shape than the truth or is not finite.
    """
    figures: Figures = {}
    cases = [(name, each) for each in conditions for name in photos_of(photos, each)]
    with progress_bars() as bars:
        for name, condition in bars.track(cases, description="photographs"):
            image, photo = condition.apply(photos[name](), seed)
            row = {key: score(_run(key, model, image, photo.shape), photo) for key, model in models.items()}
            figures.setdefault(name, {})[condition.name] = row
    return figures


def _run(name: str, model: Model, image: NDArray[np.floating], shape: tuple[int, ...]) -> Pixels:
    result = model(np.atleast_3d(image).astype(np.float32))
    if result.shape[:2] != shape[:2] or result.size != np.prod(shape):
        raise ValueError(f"model {name!r} must return the shape {shape}, got {result.shape}")
    if not np.isfinite(result).all():
        raise ValueError(f"model {name!r} must give finite pixels, got NaN or infinity")
    return result.reshape(shape)


def network_model(network: nn.Module, scale: int = 1, k: int | None = None) -> Model:
    """Wrap a network of three channels; grey goes through it as three equal ones.

    Args:
        network: The network, on the CPU.
        scale: By how much the image is enlarged beforehand if it is the convolutional network, which cannot.
        k: Keys per token of SemanIR; those of its configuration if ``None``.
    """
    is_plain = isinstance(network, ConvUNet)
    network = network.to(memory_format=torch.channels_last).eval()

    def restore(image: Pixels) -> Pixels:
        x = torch.from_numpy(image).permute(2, 0, 1)[None].expand(-1, 3, -1, -1)
        with torch.inference_mode():
            y = (network(resize_bicubic(x, scale)) if is_plain else network(x, k=k))[0]
        out = y.permute(1, 2, 0).numpy()  # (H, W, 3)
        return out if image.shape[2] == 3 else out.mean(axis=-1, keepdims=True)

    return restore


def add(figures: Figures, more: Mapping[str, Mapping[str, Mapping[str, dict[str, float]]]]) -> Figures:
    """Return figures with further methods in their rows, those of ``more`` last."""
    return {
        name: {key: {**row, **more.get(name, {}).get(key, {})} for key, row in rows.items()}
        for name, rows in figures.items()
    }


def make_card(
    task: TaskName, weights: Path, parameters: int, figures: Figures, training: Mapping[str, object]
) -> dict[str, object]:
    """Return the card of the model that ``figures`` call ``"semanir"``.

    Args:
        task: What it was trained for.
        weights: The file that was judged.
        parameters: Numbers in it.
        figures: Figures of all photographs.
        training: Facts about its training, with the keys of ``TRAINING``; ``None`` stands for unknown.
    """
    rows = [row for rows in figures.values() for row in rows.values()]
    rivals = [key for key in ("conv",) if all(key in row for row in rows)]
    colour = {name: rows for name, rows in figures.items() if name not in GREY}
    grey = {name: rows for name, rows in figures.items() if name in GREY}
    return {
        "name": f"tiny-{task}",
        "file": f"tiny-{task}/{weights.name}",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "bytes": weights.stat().st_size,
        "parameters": parameters,
        **{key: training.get(key) for key in TRAINING},
        "statement": DATA.format(count=len(figures), limits=TASKS[task].limits),
        "requirements": verdict(figures, OURS, REQUIREMENTS[task], colour),
        "requirements_of_others": {key: verdict(figures, key, REQUIREMENTS[task], colour) for key in rivals},
        "means": {"colour": means(colour), **({"grey": means(grey)} if grey else {})},
        "figures": figures,
        "losses": losses(figures, OURS),
    }


def summary(task: TaskName, card: Mapping[str, object], figures: Figures) -> dict[str, object]:
    """Return the few facts that travel with the weights, as :class:`semanir.cards.ModelCard` reads them."""
    return {
        "task": TASKS[task].phrase,
        "tasks": list(TASKS[task].evaluations),
        "license": "Apache-2.0",
        "parameters": card["parameters"],
        "figures": [
            *_summary_rows({name: rows for name, rows in figures.items() if name not in GREY}, "colour"),
            *_summary_rows({name: rows for name, rows in figures.items() if name in GREY}, "grey"),
        ],
        "statement": card["statement"],
    }


def _summary_rows(figures: Figures, kind: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for condition, methods in means(figures).items():
        count = sum(condition in conditions for conditions in figures.values())
        levels = {key: round(scores["psnr"], 2) for key, scores in methods.items()}
        rivals = {key: level for key, level in levels.items() if key in LABELS}
        row: dict[str, object] = {
            "images": f"{count} {kind} photographs",
            "setting": condition,
            "value": levels[OURS],
            "input": levels["input"],
        }
        if rivals:
            best = max(rivals, key=lambda key: rivals[key])
            row |= {"baseline": rivals[best], "baseline_name": LABELS[best]}
        rows.append(row)
    return rows


LABELS = {
    "tv": "total variation, told the noise",
    "nlm": "non-local means, told the noise",
    "bm3d": "BM3D, told the noise",
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


def show(figures: Figures, title: str, names: Collection[str] | None = None) -> None:
    """Print a table of PSNR means over the photographs, if there are any."""
    chosen = {name: rows for name, rows in figures.items() if names is None or name in names}
    found = means(chosen)
    if not found:
        return
    methods = list(dict.fromkeys(key for row in found.values() for key in row))
    cells = {
        (condition, key): f"{row[key]['psnr']:.2f}" if key in row else "-"
        for condition, row in found.items()
        for key in methods
    }
    if len(methods) > len(found):  # what is more goes downwards, where there is room
        table = Table(title, *found, title="PSNR, dB")
        for key in methods:
            table.add_row(key, *(cells[condition, key] for condition in found))
    else:
        table = Table(title, *methods, title="PSNR, dB")
        for condition in found:
            table.add_row(condition, *(cells[condition, key] for key in methods))
    stderr.print(table)


def judge(
    *tasks: TaskName,
    model: str | None = None,
    card: Flag = False,
    conv: Path | None = None,
    with_bm3d: Flag = False,
    training: Path | None = None,
    seed: int | None = None,
    seeds: int = SEEDS,
    processor: Processor = Processor(),
) -> int:
    """Measure the shipped models on photographs; exit 1 if one misses its requirements.

    Args:
        tasks: Tasks whose models are judged; those of all shipped models if none is named.
        model: Folder of another model to judge, of the one task that is named.
        card: Write the cards.
        conv: Run of the convolutional network, for the one task that is named.
        with_bm3d: Fill in missing BM3D figures; slow.
        training: JSON of recipe_commit, seed, device, training_minutes, patches_seen, begun_from.
        seed: First random seed of fresh noise, which no card is written from; mean gains then have to hold at
            their 95 % bounds over the seeds. JPEG, mosaics and smaller sizes have nothing to draw.
        seeds: Number of fresh seeds.
        processor: What it computes with.
    """
    torch.set_num_threads(processor.threads)
    chosen = tasks or tuple(task for task in TASKS if f"tiny-{task}" in SHIPPED.names())
    if len(tasks) != 1 and (model or conv or training):
        raise ValueError("name one task with --model, --conv and --training")
    if seed is not None:
        if card or conv or with_bm3d:
            raise ValueError("--seed draws fresh noise, and goes without --card, --conv and --with-bm3d")
        drawn = fresh_seeds(seed, seeds)
        passed = [_judge_afresh(task, model, drawn) for task in chosen]
    else:
        passed = [_judge(task, model, card, conv, with_bm3d, training) for task in chosen]
    return int(not all(passed))


def _judge_afresh(task: TaskName, model: str | None, seeds: Sequence[int]) -> bool:
    """Measure a model and the classical methods on fresh noise of several seeds; say what it misses."""
    name, conditions = model or f"tiny-{task}", CONDITIONS[task]
    photos = {**COLOUR, **FURTHER, **GREY}
    models: dict[str, Model] = {OURS: Restorer.from_pretrained(name, device="cpu", dtype="float32").restore}
    runs: list[Figures] = []
    for seed in seeds:
        classical: Figures = {}
        for condition in conditions:
            for key, load in photos_of(photos, condition).items():
                row = measure_baselines(load(), condition, seed)
                classical.setdefault(key, {})[condition.name] = row
        runs.append(add(classical, measure(models, photos, conditions, seed)))
    figures: Figures = mean(runs, digits=6)
    colour = [key for key in photos if key not in GREY]
    show(figures, f"tiny-{task}, colour, seeds {', '.join(map(str, seeds))}", colour)
    result = verdict(figures, OURS, REQUIREMENTS[task], colour, runs)
    gains = {
        f"{each.condition}, over {' and '.join(each.over)}": [
            round(mean_gain(run, OURS, each, colour), 3) for run in runs
        ]
        for each in REQUIREMENTS[task]
        if each.mean_gain is not None
    }
    emit({"model": name, "seeds": list(seeds), "mean_gains": gains, **result})
    return result["passed"]


def _judge(
    task: TaskName, model: str | None, card: bool, conv: Path | None, with_bm3d: bool, training: Path | None
) -> bool:
    name, conditions = model or f"tiny-{task}", CONDITIONS[task]
    photos = {**COLOUR, **FURTHER, **GREY}
    restorer = Restorer.from_pretrained(name, device="cpu", dtype="float32")
    models: dict[str, Model] = {OURS: restorer.restore}
    if conv is not None:
        models["conv"] = network_model(load_run(conv, TASKS[task]), TASKS[task].scale)
    figures = add(
        baseline_figures(photos, conditions, CARDS / "baselines.json"), measure(models, photos, conditions)
    )
    file = CARDS / "bm3d.json"
    bm3d = bm3d_figures({**COLOUR, **FURTHER} if with_bm3d else {}, conditions, file)
    figures = add(figures, {k: {c: {"bm3d": {"psnr": v}} for c, v in row.items()} for k, row in bm3d.items()})
    folder = SHIPPED.folder(name) if model is None else Path(model)
    parameters = sum(p.numel() for p in restorer.model.parameters())
    kept = CARDS / f"tiny-{task}.json"
    report = make_card(task, folder / WEIGHTS_FILE, parameters, figures, _read_training(training, kept))
    show(figures, f"tiny-{task}, colour", [key for key in photos if key not in GREY])
    show(figures, f"tiny-{task}, grey", GREY)
    result = verdict(figures, OURS, REQUIREMENTS[task], [key for key in photos if key not in GREY])
    emit({"model": name, **result})
    if card:
        write_json(kept, report)
        write_json(folder / CARD_FILE, summary(task, report, figures))
    return result["passed"]
