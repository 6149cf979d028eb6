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
from recipes.vitron_tiny.experiments import Plan, run_pairs, run_seed
from recipes.vitron_tiny.findings import draw_figure, markdown, matrix, read_results, summarise
from recipes.vitron_tiny.judging import SHARES, Shipped, judge_all, table
from recipes.vitron_tiny.pool import make_pool
from recipes.vitron_tiny.scoring import AT_LEAST, AT_MOST, missed
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
    "Written by `vitron report --write`; what was done and what it says stands in [results](results.md)."
)
STATEMENT = (
    "Trained on drawn scenes of five shapes alone, 64 pixels, clips of four frames. It shows that the method "
    "works from end to end; what it understands is no measure of any published model."
)

Out = Annotated[Path, typer.Option(help="Folder of the run; tokenizer, pool and checkpoints lie in it.")]
Folder = Annotated[Path, typer.Option(help="The trained model.")]
Threads = Annotated[int, typer.Option(help="CPU threads.")]
Device = Annotated[str, typer.Option(help="cpu, or cuda.")]
# of the study of synergy
PLAN = Plan()
Start = Annotated[
    Path | None, typer.Option(help="Trained model that all start from; by default bases are trained.")
]
BaseSteps = Annotated[int, typer.Option(min=1, help="Of each base.")]
ArmSteps = Annotated[int, typer.Option(min=1, help="Of each training from a start.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Dialogues of a step.")]
PoolSize = Annotated[int, typer.Option(min=1, help="Dialogues to learn from.")]
Tests = Annotated[int, typer.Option(min=1, help="Dialogues of each judged task.")]
Probe = Annotated[int, typer.Option(min=2, help="Signals of each module for a fresh probe.")]


@app.command()
def pool(
    out: Out,
    count: Annotated[int, typer.Option(help="Examples of all tasks together.")] = 64_000,
    size: Annotated[Size, typer.Option(help="Of the model.")] = "tiny",
    seed: Annotated[int, typer.Option(min=1, help="Of the world; 4000 and above are for judging.")] = 1,
    processes: Annotated[int, typer.Option(help="That draw at once.")] = 2,
) -> None:
    """Learn the words, and draw what is missing of the pool.

    To go on from a trained model, put its tokenizer and configuration into the folder first.
    """
    prepare(out, size=size)
    count = make_pool(out / "pool", count, tokenizer=out, seed=seed, processes=processes)
    typer.echo(f"{count} examples drawn")


@app.command()
def train(
    out: Out,
    stage: Annotated[str, typer.Option(help="joint, polish, or synergy.")] = "joint",
    steps: Annotated[int, typer.Option(help="In all.")] = 6000,
    batch_size: Annotated[int, typer.Option(help="Dialogues of a step.")] = 64,
    lr: Annotated[float | None, typer.Option(help="Peak of the rate; by default that of the stage.")] = None,
    mode: Annotated[str, typer.Option(help="Of the discriminator: off, grl, alternate, confusion.")] = "off",
    init: Annotated[Path | None, typer.Option(help="Trained model to start from.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights and order.")] = 0,
    threads: Threads = 1,
    device: Device = "cpu",
) -> None:
    """Train a stage; run again to resume."""
    # gradients of what is nearly learnt are denormal, and those take a processor many times as long
    torch.set_flush_denormal(True)
    settings = stage_of(stage, steps, batch_size=batch_size, lr=lr, mode=mode)
    train_stage(out, out / "pool", settings, init=init, seed=seed, threads=threads, device=device)
    typer.echo(f"{out / f'stage-{stage}' / 'model'}")


@app.command()
def ship(
    model: Annotated[Path, typer.Argument(help="Folder of a trained model.")],
    folder: Annotated[Path, typer.Option(help="Where it goes.")] = ASSETS,
) -> None:
    """Put a trained model, in half precision, where the package looks for it."""
    vitron = Vitron.from_pretrained(model, device="cpu", dtype="float16")
    if folder.exists():
        shutil.rmtree(folder)
    vitron.save_pretrained(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    typer.echo(f"{folder}: {size} bytes")


@app.command()
def judge(
    folder: Folder = ASSETS,
    seed: Annotated[int, typer.Option(help="Of the examples.")] = 4000,
    count: Annotated[int, typer.Option(min=1, help="Examples of most tasks in each part.")] = 200,
    batch_size: Annotated[int, typer.Option(min=1, help="Dialogues answered at once.")] = 32,
    training: Annotated[Path | None, typer.Option(help="JSON with how it was trained, for the card.")] = None,
    write: Annotated[bool, typer.Option(help="Write the card.")] = False,
    threads: Threads = 1,
    device: Device = "cpu",
) -> None:
    """Measure the shipped model on fresh seeds; exit 1 if it misses a must."""
    torch.set_num_threads(threads)
    vitron = _load(folder, device)
    figures = judge_all(Shipped(vitron), seed=seed, count=count, batch_size=batch_size, tell=_aside)
    misses = missed(figures["test"])
    typer.echo(table(figures))
    for line in misses:
        typer.echo(f"missed: {line}")
    if write:
        card = _card() | _facts(vitron, folder)
        if training is not None:
            card["training"] = json.loads(training.read_text("utf-8"))
        card |= {
            "statement": STATEMENT,
            "judged_on": {
                "seed": seed,
                "count": count,
                "shares": dict(SHARES),
                "decoding": "greedy, without the grammar",
            },
            "musts": {"at_least": dict(AT_LEAST), "at_most": dict(AT_MOST)},
            "figures": figures,
            "missed": misses,
            "passed": not misses,
        }
        CARD.write_text(json.dumps(card, indent=2) + "\n", "utf-8")
    if misses:
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
    seed: Annotated[int, typer.Option(help="Of the examples.")] = 5000,
    count: Annotated[int, typer.Option(min=1, help="Examples of each task.")] = 200,
    batch_size: Annotated[int, typer.Option(min=1, help="Dialogues answered at once.")] = 32,
    write: Annotated[bool, typer.Option(help="Add the figures to the card.")] = False,
    threads: Threads = 1,
    device: Device = "cpu",
) -> None:
    """Measure what words and signals are worth: text, signal, hybrid."""
    torch.set_num_threads(threads)
    figures = measure_messages(
        Shipped(_load(folder, device)), seed=seed, count=count, batch_size=batch_size, tell=_aside
    )
    typer.echo(table(figures))
    if write:
        card: dict[str, Any] = (
            json.loads(CARD.read_text("utf-8")) if CARD.exists() else {"name": "vitron-tiny"}
        )
        card["messages"] = {"judged_on": {"seed": seed, "count": count}, "figures": figures}
        CARD.write_text(json.dumps(card, indent=2) + "\n", "utf-8")


def _aside(line: str) -> None:
    typer.echo(line, err=True)


@app.command()
def synergy(
    out: Out,
    start: Start = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many, from the first on.")] = 5,
    first_seed: Annotated[int, typer.Option(help="The first.")] = 0,
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
        run_seed(out, seed, plan, settings=settings, start=start, threads=threads, device=device, tell=_aside)
    report(out, write=write)


@app.command()
def pairs(
    out: Out,
    start: Start = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many, from 0 on.")] = 5,
    base_steps: BaseSteps = PLAN.base_steps,
    arm_steps: ArmSteps = PLAN.arm_steps,
    pool_size: PoolSize = PLAN.pool,
    batch_size: BatchSize = PLAN.batch_size,
    tests: Tests = PLAN.tests,
    probe: Probe = PLAN.probe,
    threads: Threads = 1,
    device: Device = "cpu",
) -> None:
    """Train without one task after the other, and say what the others lose; in the folder of synergy."""
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
        run_pairs(out, seed, plan, start=start, threads=threads, device=device, tell=_aside)
    typer.echo(matrix(read_results(out, "pairs")))


@app.command()
def report(
    out: Out,
    write: Annotated[bool, typer.Option(help="Write card, figure and table of the documentation.")] = False,
) -> None:
    """Print what a study of synergy has found so far."""
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
