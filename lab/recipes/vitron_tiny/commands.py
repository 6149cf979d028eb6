# SPDX-License-Identifier: Apache-2.0
"""``python -m recipes vitron``: prepare, draw the pool, train, ship, judge; and the two experiments."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from vitron.model.engine import Vitron

from recipes.cards import CARDS
from recipes.vitron_tiny.ablation import ablate as measure_messages
from recipes.vitron_tiny.building import Size
from recipes.vitron_tiny.evaluation import SHARES, ShippedModel, evaluate_all, table
from recipes.vitron_tiny.experiments import Plan, run_pairs, run_seed
from recipes.vitron_tiny.pool import make_pool
from recipes.vitron_tiny.results import draw_figure, markdown, matrix, read_results, summarise
from recipes.vitron_tiny.scoring import AT_LEAST, AT_MOST, missed_requirements
from recipes.vitron_tiny.training import prepare, stage_of
from recipes.vitron_tiny.training import train as train_stage

app = typer.Typer(help=__doc__, no_args_is_help=True)

ROOT = Path(__file__).parents[3]
ASSETS = ROOT / "packages" / "vitron" / "src" / "vitron" / "assets" / "vitron-tiny"
CARD = CARDS / "vitron-tiny.json"
SYNERGY_CARD = CARDS / "vitron-synergy.json"
DOCS = ROOT / "docs" / "vitron"
SYNERGY_HEAD = (
    "# Synergy: all figures\n\n"
    "Written by `vitron report --write`; the study is described in [results](results.md)."
)
STATEMENT = (
    "Trained on drawn scenes of five shapes alone, 64 pixels, clips of four frames. It shows that the method "
    "works from end to end; what it understands is no measure of any published model."
)

Out = Annotated[Path, typer.Option(help="Folder of the run: tokenizer, pool and checkpoints.")]
Folder = Annotated[Path, typer.Option(help="Folder of the trained model.")]
Threads = Annotated[int, typer.Option(help="CPU threads.")]
Device = Annotated[str, typer.Option(help="Device: cpu or cuda.")]
# of the study of synergy
PLAN = Plan()
Start = Annotated[
    Path | None, typer.Option(help="Trained model that all arms start from; by default bases are trained.")
]
BaseSteps = Annotated[int, typer.Option(min=1, help="Steps of each base.")]
ArmSteps = Annotated[int, typer.Option(min=1, help="Steps of each arm.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Conversations per step.")]
PoolSize = Annotated[int, typer.Option(min=1, help="Conversations in the pool.")]
Tests = Annotated[int, typer.Option(min=1, help="Conversations of each evaluated task.")]
Probe = Annotated[int, typer.Option(min=2, help="Signals per module for a fresh probe.")]


@app.command()
def pool(
    out: Out,
    count: Annotated[int, typer.Option(help="Number of examples of all tasks.")] = 64_000,
    size: Annotated[Size, typer.Option(help="Size of the model.")] = "tiny",
    seed: Annotated[int, typer.Option(min=1, help="Random seed; 4000 and above are for evaluation.")] = 1,
    processes: Annotated[int, typer.Option(help="Number of processes.")] = 2,
) -> None:
    """Train the tokenizer, and draw what is missing of the pool.

    To continue from a trained model, put its processor and configuration into the folder first.
    """
    prepare(out, size=size)
    count = make_pool(out / "pool", count, tokenizer=out, seed=seed, processes=processes)
    typer.echo(f"{count} examples drawn")


@app.command()
def train(
    out: Out,
    stage: Annotated[str, typer.Option(help="Stage: joint, polish or synergy.")] = "joint",
    steps: Annotated[int, typer.Option(help="Number of steps.")] = 6000,
    batch_size: Annotated[int, typer.Option(help="Conversations per step.")] = 64,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate; by default that of the stage.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="Mode of the discriminator: off, grl, alternate, confusion.")
    ] = "off",
    init: Annotated[Path | None, typer.Option(help="Trained model to start from.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed of weights and order.")] = 0,
    threads: Threads = 1,
    device: Device = "cpu",
) -> None:
    """Train a stage; run again to resume."""
    # gradients near convergence are denormal, which CPUs compute many times slower
    torch.set_flush_denormal(True)
    settings = stage_of(stage, steps, batch_size=batch_size, lr=lr, mode=mode)
    train_stage(out, out / "pool", settings, init=init, seed=seed, threads=threads, device=device)
    typer.echo(f"{out / f'stage-{stage}' / 'model'}")


@app.command()
def ship(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    folder: Annotated[Path, typer.Option(help="Folder of the package's asset.")] = ASSETS,
) -> None:
    """Write a trained model in half precision into the package."""
    vitron = Vitron.from_pretrained(model, device="cpu", dtype="float16")
    if folder.exists():
        shutil.rmtree(folder)
    vitron.save_pretrained(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    typer.echo(f"{folder}: {size} bytes")


@app.command()
def judge(
    folder: Folder = ASSETS,
    seed: Annotated[int, typer.Option(help="Random seed of the examples.")] = 4000,
    count: Annotated[int, typer.Option(min=1, help="Examples of most tasks in each part.")] = 200,
    batch_size: Annotated[int, typer.Option(min=1, help="Conversations per batch.")] = 32,
    training: Annotated[Path | None, typer.Option(help="JSON with how it was trained, for the card.")] = None,
    write: Annotated[bool, typer.Option(help="Write the card.")] = False,
    threads: Threads = 1,
    device: Device = "cpu",
) -> None:
    """Evaluate the shipped model on fresh seeds; exit 1 if it misses a requirement."""
    torch.set_num_threads(threads)
    vitron = _load(folder, device)
    figures = evaluate_all(ShippedModel(vitron), seed=seed, count=count, batch_size=batch_size, log=_log)
    missed = missed_requirements(figures["test"])
    typer.echo(table(figures))
    for line in missed:
        typer.echo(f"missed: {line}")
    if write:
        card = _card() | _facts(vitron, folder)
        if training is not None:
            card["training"] = json.loads(training.read_text("utf-8"))
        card |= {
            "statement": STATEMENT,
            "evaluated_on": {
                "seed": seed,
                "count": count,
                "shares": dict(SHARES),
                "decoding": "greedy, without the grammar",
            },
            "requirements": {"at_least": dict(AT_LEAST), "at_most": dict(AT_MOST)},
            "figures": figures,
            "missed": missed,
            "passed": not missed,
        }
        CARD.write_text(json.dumps(card, indent=2) + "\n", "utf-8")
    if missed:
        raise typer.Exit(1)


def _load(folder: Path, device: str) -> Vitron:
    return Vitron.from_pretrained(folder, device=device, dtype="float32")


def _card() -> dict[str, Any]:
    return json.loads(CARD.read_text("utf-8")) if CARD.exists() else {"name": "vitron-tiny"}


def _facts(vitron: Vitron, folder: Path) -> dict[str, Any]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {
        "bytes": sum(file.stat().st_size for file in files),
        "sha256": {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in files
            if file.suffix == ".safetensors"
        },
        "parameters": {
            name: sum(each.numel() for each in part.parameters())
            for name, part in vitron.model.named_children()
        },
    }


@app.command()
def ablate(
    folder: Folder = ASSETS,
    seed: Annotated[int, typer.Option(help="Random seed of the examples.")] = 5000,
    count: Annotated[int, typer.Option(min=1, help="Examples of each task.")] = 200,
    batch_size: Annotated[int, typer.Option(min=1, help="Conversations per batch.")] = 32,
    write: Annotated[bool, typer.Option(help="Add the figures to the card.")] = False,
    threads: Threads = 1,
    device: Device = "cpu",
) -> None:
    """Ablate what specialists receive: text, signals, or both."""
    torch.set_num_threads(threads)
    figures = measure_messages(
        ShippedModel(_load(folder, device)), seed=seed, count=count, batch_size=batch_size, log=_log
    )
    typer.echo(table(figures))
    if write:
        card: dict[str, Any] = (
            json.loads(CARD.read_text("utf-8")) if CARD.exists() else {"name": "vitron-tiny"}
        )
        card["messages"] = {"evaluated_on": {"seed": seed, "count": count}, "figures": figures}
        CARD.write_text(json.dumps(card, indent=2) + "\n", "utf-8")


def _log(line: str) -> None:
    typer.echo(line, err=True)


@app.command()
def synergy(
    out: Out,
    start: Start = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 5,
    first_seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    base_steps: BaseSteps = PLAN.base_steps,
    arm_steps: ArmSteps = PLAN.arm_steps,
    batch_size: BatchSize = PLAN.batch_size,
    pool_size: PoolSize = PLAN.pool,
    tests: Tests = PLAN.tests,
    probe: Probe = PLAN.probe,
    low: Annotated[bool, typer.Option(help="Also with a tenth of tracking and editing.")] = True,
    write: Annotated[bool, typer.Option(help="Write card, figure and table of the documentation.")] = False,
    threads: Threads = 1,
    device: Device = "cpu",
) -> None:
    """Train four arms for each seed; run again to resume, or to report what there is."""
    torch.set_flush_denormal(True)
    plan = Plan(
        base_steps=base_steps,
        arm_steps=arm_steps,
        batch_size=batch_size,
        pool=pool_size,
        tests=tests,
        probe=probe,
    )
    for seed in range(first_seed, first_seed + seeds):
        settings = ("full", "low") if low else ("full",)
        run_seed(out, seed, plan, settings=settings, start=start, threads=threads, device=device, log=_log)
    report(out, write=write)


@app.command()
def pairs(
    out: Out,
    start: Start = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, from 0 on.")] = 5,
    base_steps: BaseSteps = PLAN.base_steps,
    arm_steps: ArmSteps = PLAN.arm_steps,
    pool_size: PoolSize = PLAN.pool,
    batch_size: BatchSize = PLAN.batch_size,
    tests: Tests = PLAN.tests,
    probe: Probe = PLAN.probe,
    threads: Threads = 1,
    device: Device = "cpu",
) -> None:
    """Train without each task in turn, and show what the others lose; in the folder of synergy."""
    torch.set_flush_denormal(True)
    plan = Plan(
        base_steps=base_steps,
        arm_steps=arm_steps,
        batch_size=batch_size,
        pool=pool_size,
        tests=tests,
        probe=probe,
    )
    for seed in range(seeds):
        run_pairs(out, seed, plan, start=start, threads=threads, device=device, log=_log)
    typer.echo(matrix(read_results(out, "pairs")))


@app.command()
def report(
    out: Out,
    write: Annotated[bool, typer.Option(help="Write card, figure and table of the documentation.")] = False,
) -> None:
    """Print the results of a study of synergy so far."""
    results = read_results(out)
    if not results:
        typer.echo(f"{out} has no results yet: run synergy first", err=True)
        raise typer.Exit(2)
    rows = summarise(results)
    typer.echo(markdown(rows))
    if write:
        DOCS.mkdir(parents=True, exist_ok=True)
        left_out = read_results(out, "pairs")
        card = {"name": "vitron-synergy", "results": results, "pairs": left_out}
        SYNERGY_CARD.write_text(json.dumps(card, indent=1) + "\n")
        parts = [SYNERGY_HEAD, markdown(rows), *([matrix(left_out)] if left_out else [])]
        (DOCS / "synergy-table.md").write_text("\n\n".join(parts) + "\n")
        draw_figure(rows, DOCS / "synergy.png")
