# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes vitron``: draw the pool, train, ship and evaluate; and the two experiments."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from common_kernels.runtime.cli import OutputPath, say, warn
from cyclopts import Group, Parameter
from cyclopts.types import PositiveInt
from cyclopts.validators import Number
from vitron.model.engine import Vitron

from recipes.cards import CARDS, folder_size, read_card, weights_of
from recipes.gates import SEEDS, add_reading, fresh_seeds, missed
from recipes.options import Accelerator, Debug, Flag
from recipes.vitron_tiny.ablation import ablate as measure_messages
from recipes.vitron_tiny.building import Size
from recipes.vitron_tiny.demo_conversations import write_demo
from recipes.vitron_tiny.evaluation import (
    CONVERSATIONS,
    FIRST_SEED,
    SHARES,
    TEST_SEED,
    VALIDATION_SEED,
    ShippedModel,
)
from recipes.vitron_tiny.experiments import Plan, run_pairs, run_seed
from recipes.vitron_tiny.figures import QUESTIONS, REQUIREMENTS, table
from recipes.vitron_tiny.judging import columns, evaluate_all, page
from recipes.vitron_tiny.plain import judge_plain
from recipes.vitron_tiny.pool import make_pool
from recipes.vitron_tiny.results import draw_figure, markdown, matrix, read_results, summarise
from recipes.vitron_tiny.stages import pool_shares, stage_of
from recipes.vitron_tiny.training import Precision, prepare
from recipes.vitron_tiny.training import train as train_stage

ROOT = Path(__file__).parents[3]
ASSETS = ROOT / "packages" / "vitron" / "src" / "vitron" / "assets" / "vitron-tiny"
EXAMPLES = ASSETS.parent / "demo"
CARD = CARDS / "vitron-tiny.json"
SYNERGY_CARD = CARDS / "vitron-synergy.json"
DOCS = ROOT / "docs" / "vitron"
SYNERGY_HEAD = (
    "# Synergy: all figures\n\n"
    "Written by `vitron report RUN --write`; the study is described in [results](results.md)."
)
RESULTS_HEAD = (
    "# All figures of vitron-tiny\n\n"
    "Written by `vitron judge --test --write`; they are described in [results](results.md)."
)
STATEMENT = (
    "Trained on drawn scenes of five shapes alone, 64 pixels, videos of four frames. It shows that the "
    "method works from end to end; its figures are no measure of any published model."
)

StudyPlan = Annotated[Plan, Parameter(name="*", group=Group("Study", sort_key=1))]


def pool(
    *,
    output: OutputPath,
    count: int = 64_000,
    stage: str = "joint",
    size: Size = "tiny",
    seed: Annotated[int, Parameter(validator=Number(gte=1, lt=FIRST_SEED))] = 1,
    processes: int = 2,
    debug: Debug = Debug(),
) -> None:
    """Train the tokenizer and draw the missing shards of the pool of a stage.

    To continue from a trained model, put its processor and configuration into the folder first.

    Args:
        output: Folder of the run: tokenizer, pool and checkpoints.
        count: Number of examples of all tasks.
        stage: Stage whose shares of tasks are drawn: joint, see, polish, whole or photo.
        size: Size of the model.
        seed: Random seed, below 4000: the others are for evaluation.
        processes: Number of processes.
    """
    prepare(output, size=size)
    count = make_pool(
        output / f"pool-{stage}",
        count,
        shares=pool_shares(stage),
        tokenizer=output,
        seed=seed,
        processes=processes,
    )
    say(f"{count} examples drawn")


def train(
    *,
    output: OutputPath,
    stage: str = "joint",
    steps: int = 6000,
    batch_size: int = 64,
    lr: float | None = None,
    mode: str = "off",
    init: Path | None = None,
    seed: int = 0,
    processes: PositiveInt = 1,
    precision: Precision = "32-true",
    machine: Accelerator = Accelerator(),
) -> None:
    """Train a stage; run again to resume.

    Args:
        output: Folder of the run: tokenizer, pool and checkpoints.
        stage: Stage: joint, see, polish, whole, photo or synergy.
        steps: Number of steps.
        batch_size: Number of conversations per step.
        lr: Peak learning rate; by default that of the stage.
        mode: Mode of the discriminator: off, grl, alternate, confusion.
        init: Trained model to start from.
        seed: Random seed of weights and order.
        processes: Number of processes, which share the conversations of a step.
        precision: Precision, as Lightning names it.
    """
    # gradients near convergence are denormal, which CPUs compute many times slower
    torch.set_flush_denormal(True)
    settings = stage_of(stage, steps, batch_size=batch_size, lr=lr, mode=mode)
    train_stage(
        output,
        output / f"pool-{stage}",
        settings,
        init=init,
        seed=seed,
        threads=machine.threads,
        device=machine.device,
        processes=processes,
        precision=precision,
    )
    say(f"{output / f'stage-{stage}' / 'model'}")


def ship(model: Path, /, *, folder: Path = ASSETS, debug: Debug = Debug()) -> None:
    """Write a trained model in half precision into the package.

    Args:
        model: Folder of a trained model.
        folder: Folder of the package's asset.
    """
    vitron = Vitron.from_pretrained(model, device="cpu", dtype="float16")
    if folder.exists():
        shutil.rmtree(folder)
    vitron.save_pretrained(folder)
    say(f"{folder}: {folder_size(folder)} bytes")


def examples(*, folder: Path = EXAMPLES, debug: Debug = Debug()) -> None:
    """Replace the example conversations of the package.

    Args:
        folder: Folder of the package's asset.
    """
    say(f"{write_demo(folder)} conversations in {folder}")


def judge(
    *,
    folder: Path = ASSETS,
    test: Flag = False,
    seed: Annotated[int | None, Parameter(validator=Number(gte=FIRST_SEED))] = None,
    seeds: PositiveInt = SEEDS,
    count: PositiveInt = 30,
    batch_size: PositiveInt = 32,
    training: Path | None = None,
    write: Flag = False,
    machine: Accelerator = Accelerator(),
) -> int:
    """Evaluate the shipped model on fresh seeds; exit 1 if it misses a requirement at its 95 % bound.

    Args:
        folder: Folder of the trained model.
        test: Use the test seeds, which are read once per release, instead of the validation seeds.
        seed: First seed of a set of your own, instead of either.
        seeds: Number of seeds.
        count: Number of examples of a task of share 1 in each part, for each seed.
        batch_size: Number of conversations per batch.
        training: JSON with how it was trained, for the card.
        write: Write the card and the tables of the documentation.
    """
    torch.set_num_threads(machine.threads)
    vitron = _load(folder, machine.device)
    first = seed if seed is not None else TEST_SEED if test else VALIDATION_SEED
    drawn = fresh_seeds(first, seeds)
    report = evaluate_all(ShippedModel(vitron), seeds=drawn, count=count, batch_size=batch_size, log=warn)
    misses = missed(REQUIREMENTS, report.runs, report.figures)
    say(page(report))
    for line in misses:
        say(f"missed: {line}")
    if write:
        card = read_card(CARD, training)
        card |= {
            **_facts(vitron, folder),
            "statement": STATEMENT,
            "evaluated_on": {
                "set": "test" if test else "validation" if seed is None else "fresh",
                "seeds": drawn,
                "count": count,
                "shares": dict(SHARES),
                "conversations": CONVERSATIONS,
                "decoding": "greedy, without the grammar",
            },
            "requirements": [str(each) for each in REQUIREMENTS],
            "figures": report.figures,
            "baseline": report.baseline,
            "slices": report.slices,
            "missed": misses,
            "passed": not misses,
            "questions": "no skill" if missed((QUESTIONS,), report.runs, report.figures) else "skill",
            "readings": add_reading(
                card, seeds=drawn, digest=weights_of(folder)["sha256"]["model.safetensors"], misses=misses
            ),
        }
        CARD.write_text(json.dumps(card, indent=2) + "\n", "utf-8")
        (DOCS / "results-table.md").write_text(f"{RESULTS_HEAD}\n\n{page(report)}\n", "utf-8")
    return int(bool(misses))


def _load(folder: Path, device: str) -> Vitron:
    return Vitron.from_pretrained(folder, device=device, dtype="float32")


def _facts(vitron: Vitron, folder: Path) -> dict[str, Any]:
    return {
        **weights_of(folder),
        "parameters": {
            name: sum(each.numel() for each in part.parameters())
            for name, part in vitron.model.named_children()
        },
    }


def ablate(
    *,
    folder: Path = ASSETS,
    seed: int = 5000,
    count: PositiveInt = 200,
    batch_size: PositiveInt = 32,
    write: Flag = False,
    machine: Accelerator = Accelerator(),
) -> None:
    """Ablate what specialists receive: text, signals, or both.

    Args:
        folder: Folder of the trained model.
        seed: Random seed of the examples.
        count: Number of examples of each task.
        batch_size: Number of conversations per batch.
        write: Add the figures to the card.
    """
    torch.set_num_threads(machine.threads)
    figures = measure_messages(
        ShippedModel(_load(folder, machine.device)), seed=seed, count=count, batch_size=batch_size, log=warn
    )
    say(table(figures))
    if write:
        _add_figures("messages", figures, seed=seed, count=count)


def plain(
    *,
    folder: Path = ASSETS,
    seed: Annotated[int, Parameter(validator=Number(gte=FIRST_SEED))] = 6800,
    count: PositiveInt = 60,
    batch_size: PositiveInt = 32,
    write: Flag = False,
    machine: Accelerator = Accelerator(),
) -> None:
    """Evaluate the plainest requests, first and behind greetings, captions and calls.

    Args:
        folder: Folder of the trained model.
        seed: Random seed of the examples.
        count: Number of conversations of each case.
        batch_size: Number of conversations per batch.
        write: Add the figures to the card.
    """
    torch.set_num_threads(machine.threads)
    model = ShippedModel(_load(folder, machine.device))
    figures = judge_plain(model, seed=seed, count=count, batch_size=batch_size)
    say(table(columns(figures), "case"))
    if write:
        _add_figures("plain", figures, seed=seed, count=count)


def _add_figures(name: str, figures: Mapping[str, Any], *, seed: int, count: int) -> None:
    """Add the figures of an experiment to the card."""
    card = read_card(CARD)
    card[name] = {"evaluated_on": {"seed": seed, "count": count}, "figures": figures}
    CARD.write_text(json.dumps(card, indent=2) + "\n", "utf-8")


def synergy(
    *,
    output: OutputPath,
    start: Path | None = None,
    seeds: PositiveInt = 5,
    first_seed: int = 0,
    plan: StudyPlan = Plan(),
    low: bool = True,
    write: Flag = False,
    machine: Accelerator = Accelerator(),
) -> None:
    """Train four arms for each seed; run again to resume, or to report what there is.

    Args:
        output: Folder of the study.
        start: Trained model that all arms start from; by default bases are trained.
        seeds: Number of seeds.
        first_seed: First seed.
        low: Also with a tenth of tracking and editing.
        write: Write card, figure and table of the documentation.
    """
    torch.set_flush_denormal(True)
    settings = ("full", "low") if low else ("full",)
    for seed in range(first_seed, first_seed + seeds):
        run_seed(
            output,
            seed,
            plan,
            settings=settings,
            start=start,
            threads=machine.threads,
            device=machine.device,
            log=warn,
        )
    report(output, write=write)


def pairs(
    *,
    output: OutputPath,
    start: Path | None = None,
    seeds: PositiveInt = 5,
    plan: StudyPlan = Plan(),
    machine: Accelerator = Accelerator(),
) -> None:
    """Train without each task in turn, and show what the others lose; in the folder of synergy.

    Args:
        output: Folder of the study.
        start: Trained model that all arms start from; by default bases are trained.
        seeds: Number of seeds, from 0 on.
    """
    torch.set_flush_denormal(True)
    for seed in range(seeds):
        run_pairs(output, seed, plan, start=start, threads=machine.threads, device=machine.device, log=warn)
    say(matrix(read_results(output, "pairs")))


def report(run: Path, /, *, write: Flag = False, debug: Debug = Debug()) -> None:
    """Print the results of a study of synergy so far.

    Args:
        run: Folder of the study.
        write: Write card, figure and table of the documentation.
    """
    results = read_results(run)
    if not results:
        raise ValueError(f"{run} has no results yet: run synergy first")
    rows = summarise(results)
    say(markdown(rows))
    if write:
        DOCS.mkdir(parents=True, exist_ok=True)
        left_out = read_results(run, "pairs")
        card = {"name": "vitron-synergy", "results": results, "pairs": left_out}
        SYNERGY_CARD.write_text(json.dumps(card, indent=1) + "\n")
        parts = [SYNERGY_HEAD, markdown(rows), *([matrix(left_out)] if left_out else [])]
        (DOCS / "synergy-table.md").write_text("\n\n".join(parts) + "\n")
        draw_figure(rows, DOCS / "synergy.png")
