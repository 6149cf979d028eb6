# SPDX-License-Identifier: Apache-2.0
"""Trains tiny-clip: first the class token learns names by classification, then both towers learn sentences.

From scratch the contrastive loss alone finds colours and stays blind to shapes for very long; classification
leaves that plateau within minutes, and the contrastive loss keeps what it finds.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import subprocess
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from open_clip.model import CLIP
from shapeworld import Scene
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from recipes.tiny_clip.network import (
    Heads,
    Size,
    classification_losses,
    contrastive_loss,
    pooled_token,
    targets,
    text_embedding,
    to_input,
)
from recipes.tiny_clip.scenes import (
    Facts,
    claimed,
    loose_caption,
    pool_scene,
    shown,
    strict_caption,
    true_of,
    uninformative,
)
from recipes.tiny_clip.tokens import encode
from recipes.tiny_clip.zero_shot import Sample, name_accuracies, single_things

CHECKPOINT, LOG, STATE = "last.pt", "log.csv", "training.json"
# share of the captions in which words that carry no fact become unknown ones, or unknown ones come in: users
# wrap names into sentences that were never heard here
NOISY_SHARE = 0.3
_CARRIERS = frozenset(
    {"a", "an", "and", "is", "of", "on", "photo", "picture", "shows", "the", "there", "this"}
)
MAX_LOGIT_SCALE = 4.6052  # ln 100
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides what a run becomes.

    Attributes:
        pool_seed: Of the scenes in the pool.
        seed: Of the weights and of everything drawn in training.
        steps: Optimiser steps in all.
        warm_steps: Of these, at most so many of classification alone.
        known_shapes: Accuracy of shapes on held-out single things that ends this first phase early.
        examine_steps: Steps between examinations, which are also checkpoints.
        batch_size: Pictures per step.
        optimizer: Name known to timm.
        learning_rate: Peak.
        weight_decay: Of matrices.
        ramp_steps: With rising rate, at the start of each phase.
        decay_fraction: Share of the run with falling rate, at the end.
        classification: Weight of the classification losses beside the contrastive one, falls to 0 linearly.
        precision: Of the matrix products.
        size: Of the network.
    """

    pool_seed: int = 3
    seed: int = 0
    steps: int = 5000
    warm_steps: int = 2000
    known_shapes: float = 0.92
    examine_steps: int = 100
    batch_size: int = 128
    optimizer: str = "muon"
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    ramp_steps: int = 60
    decay_fraction: float = 0.5
    classification: float = 0.3
    precision: Literal["fp32", "bf16"] = "bf16"
    size: Size = field(default_factory=Size)

    def rate(self, step: int, phase_begin: int) -> float:
        """Return the learning rate of a step of the phase that began at a step."""
        since = step - phase_begin
        ramp = min(1.0, (since + 1) / self.ramp_steps)
        return self.learning_rate * ramp * min(1.0, (self.steps - step) / (self.decay_fraction * self.steps))


@dataclass(slots=True)
class Run:
    """What a checkpoint holds beside the weights.

    Attributes:
        step: Steps done.
        contrast_from: Step at which the second phase began, or ``None``.
        seconds: Time spent training, over all sittings.
        rows: Of the log.
    """

    step: int = 0
    contrast_from: int | None = None
    seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """The networks, their optimiser and where they stand.

    Args:
        plan: What to do.
        pool: ``(count, 64, 64, 3)`` uint8, scenes of the plan's ``pool_seed``.
        device: Where to compute.
    """

    def __init__(self, plan: Plan, pool: NDArray[np.uint8], device: str = "cpu") -> None:
        self.plan, self.pool, self.device = plan, pool, torch.device(device)
        with torch.random.fork_rng():
            torch.manual_seed(plan.seed)
            self.model: CLIP = plan.size.build().to(self.device)
            self.heads = Heads(plan.size.width).to(self.device)
        self.parameters = [*self.model.parameters(), *self.heads.parameters()]
        self.optimizer = create_optimizer_v2(
            parameter_groups(self.model, self.heads, plan.weight_decay),
            opt=plan.optimizer,
            lr=plan.learning_rate,
        )
        self.run = Run()

    def save(self, folder: Path) -> None:
        """Write the checkpoint; a kill in between leaves the old one."""
        state = {
            "plan": asdict(self.plan),
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "run": asdict(self.run),
        }
        torch.save(state, folder / "next.pt")
        os.replace(folder / "next.pt", folder / CHECKPOINT)

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint; only the number of steps may have changed.

        Raises:
            ValueError: If the rest of the plan has changed too.
        """
        state = torch.load(folder / CHECKPOINT, map_location=self.device)
        begun, now = (plan | {"steps": 0} for plan in (state["plan"], asdict(self.plan)))
        if begun != now:
            raise ValueError(f"plan must be that of {folder} but for its steps, {begun}, got {now}")
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.run = Run(**state["run"])

    def scenes(self, step: int) -> tuple[Tensor, list[Scene], np.random.Generator]:
        """Return the pictures of a step, half of them mirrored, their scenes, and the stream for captions."""
        rng = np.random.default_rng((self.plan.seed, step))
        index = np.sort(rng.choice(len(self.pool), self.plan.batch_size, replace=False))
        images = self.pool[index]
        mirrored = rng.random(len(index)) < 0.5
        images[mirrored] = images[mirrored, :, ::-1]
        return to_input(images, self.device), [pool_scene(self.plan.pool_seed, int(i)) for i in index], rng

    def step(self) -> dict[str, float]:
        """Do one step and return its losses, each beside its value at chance."""
        plan, run, step = self.plan, self.run, self.run.step
        images, scenes, rng = self.scenes(step)
        sights = shown(scenes)
        for group in self.optimizer.param_groups:
            group["lr"] = plan.rate(step, run.contrast_from or 0)
        self.optimizer.zero_grad()
        bf16 = torch.autocast(self.device.type, torch.bfloat16, enabled=plan.precision == "bf16")
        # the text tower's attention too: the fused one has a slow backward in bf16 on CPUs
        with bf16, sdpa_kernel(SDPBackend.MATH):
            pooled = pooled_token(self.model, images)
            losses = classification_losses(self.heads(pooled), sights)
            loss = torch.stack(list(losses.values())).mean()
            report = {f"loss_{name}": value.item() for name, value in losses.items()}
            if run.contrast_from is not None:
                fade = (plan.steps - step) / (plan.steps - run.contrast_from)
                contrastive, told = self._contrast(pooled, scenes, sights, rng)
                loss = plan.classification * fade * loss + contrastive
                report |= told
        loss.backward()
        report["grad_norm"] = nn.utils.clip_grad_norm_(self.parameters, 1.0).item()
        self.optimizer.step()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        run.step += 1
        return report

    def _contrast(
        self, pooled: Tensor, scenes: list[Scene], sights: Facts, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the mean of the contrastive losses over two captions of each picture, and the report."""
        image = F.normalize(pooled @ self.model.visual.proj, dim=-1)
        parts: list[Tensor] = []
        report: dict[str, float] = {}
        for kind, draw in (("strict", strict_caption), ("loose", loose_caption)):
            texts = [draw(scene, rng) for scene in scenes]
            claims = claimed(texts)
            left_out = torch.from_numpy(true_of(claims, sights) | uninformative(claims, sights)).to(
                self.device
            )
            tokens = encode([roughen(text.split(), rng) for text in texts]).to(self.device)
            text = text_embedding(self.model, tokens)
            part, chance = contrastive_loss(image, text, self.model.logit_scale.exp(), left_out)
            parts.append(part)
            report |= {f"loss_{kind}": part.item(), f"chance_{kind}": chance.item()}
        return torch.stack(parts).mean(), report

    @torch.inference_mode()
    def examine(self, samples: dict[str, Sample]) -> dict[str, float]:
        """Return accuracies on held-out single things, by the heads and by prompts."""
        found: dict[str, float] = {}
        for label, sample in samples.items():
            pooled = torch.cat([pooled_token(self.model, x) for x in to_input(sample.images).split(128)])
            wanted = targets(sample.facts)
            for name, scores in self.heads(pooled).items():
                if name in ("shape", "colour", "material"):
                    hits = scores.argmax(dim=-1) == wanted[name].argmax(dim=-1)
                    found[f"{label}_head_{name}"] = hits.float().mean().item()
            if self.run.contrast_from is not None:
                image = F.normalize(pooled @ self.model.visual.proj, dim=-1)
                prompts = name_accuracies(image, self.model.encode_text, encode_sentences, sample.facts)
                found |= {f"{label}_{name}": value for name, value in prompts.items()}
        return found


def parameter_groups(model: CLIP, heads: Heads, weight_decay: float) -> list[dict[str, Any]]:
    """Return the matrices between channels, and the rest, for which Muon falls back on AdamW."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = list(heads.parameters())
    for name, parameter in model.named_parameters():
        (rest if parameter.ndim < 2 or "embedding" in name else matrices).append(parameter)
    return [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0, "use_fallback": True},
    ]


def encode_sentences(texts: list[str]) -> Tensor:
    """Return the tokens of sentences, ``(B, CONTEXT_LENGTH)``."""
    return encode([text.split() for text in texts])


def roughen(words: list[str], rng: np.random.Generator) -> list[str]:
    """Put unknown words into some of the captions, in place of words without facts and before the others."""
    if rng.random() >= NOISY_SHARE:
        return words
    kept = ["?" if word in _CARRIERS and rng.random() < 0.4 else word for word in words]
    return ["?"] * int(rng.integers(4)) + kept


def run_training(
    trainer: Trainer, folder: Path, *, stop_at: int | None = None, report_every: int = 20
) -> None:
    """Train to the end of the plan, or to ``stop_at``; leaves a checkpoint and a log in the folder.

    Args:
        trainer: Fresh, or loaded from the checkpoint.
        folder: Where checkpoint and log go.
        stop_at: Step to stop at before the end.
        report_every: Steps between lines on the screen.
    """
    samples = {"val": single_things(1, 512, "val"), "novel": single_things(1, 256, "novel")}
    plan, run = trainer.plan, trainer.run
    last = min(plan.steps, stop_at or plan.steps)
    sums: dict[str, list[float]] = defaultdict(list)
    clock, before = time.monotonic(), run.seconds
    while run.step < last:
        for name, value in trainer.step().items():
            sums[name].append(value)
        run.seconds = before + time.monotonic() - clock
        if run.step % report_every == 0:
            recent = {name: round(float(np.mean(values[-report_every:])), 3) for name, values in sums.items()}
            _logger.info("%d %.0fs %s", run.step, run.seconds, json.dumps(recent))
        if run.step % plan.examine_steps and run.step < last:
            continue
        found = trainer.examine(samples)
        means = {name: round(float(np.mean(values)), 4) for name, values in sums.items()}
        sums.clear()
        place = {
            "step": run.step,
            "images": run.step * plan.batch_size,
            "minutes": round(run.seconds / 60, 2),
        }
        run.rows.append({**place, **means, **{name: round(value, 4) for name, value in found.items()}})
        _logger.info("%s", json.dumps(run.rows[-1]))
        known = found["val_head_shape"] >= plan.known_shapes or run.step >= plan.warm_steps
        if run.contrast_from is None and known and run.step % plan.examine_steps == 0:
            run.contrast_from = run.step
        trainer.save(folder)
        write_log(folder / LOG, run.rows)


def write_log(path: Path, rows: list[dict[str, float]]) -> None:
    """Write all rows; the columns are those of any row."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.with_suffix(".part").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(path.with_suffix(".part"), path)


def recipe_commit() -> str:
    """Return the commit of this checkout, or ``"unknown"``."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


_DEFAULT = Plan()


def train(
    pool: Annotated[Path, typer.Option(help="Painted scenes, from the command 'pool'.")],
    out: Annotated[Path, typer.Option(help="Folder of checkpoint and log; resumed if it has one.")],
    steps: Annotated[int, typer.Option(help="Optimiser steps in all.")] = _DEFAULT.steps,
    warm_steps: Annotated[
        int, typer.Option(help="Of these, at most so many of classification.")
    ] = _DEFAULT.warm_steps,
    batch_size: Annotated[int, typer.Option(help="Pictures per step.")] = _DEFAULT.batch_size,
    optimizer: Annotated[str, typer.Option(help="Name known to timm.")] = _DEFAULT.optimizer,
    learning_rate: Annotated[float, typer.Option(help="Peak.")] = _DEFAULT.learning_rate,
    precision: Annotated[str, typer.Option(help="bf16 or fp32.")] = _DEFAULT.precision,
    stop_at: Annotated[int | None, typer.Option(help="Stop at this step, to go on later.")] = None,
    pool_seed: Annotated[int, typer.Option(help="Seed the pool was painted with.")] = _DEFAULT.pool_seed,
    seed: Annotated[int, typer.Option(help="Of weights, batches and captions.")] = _DEFAULT.seed,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Train tiny-clip; run again with the same folder and options to resume."""
    torch.set_num_threads(threads)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    plan = Plan(
        pool_seed=pool_seed,
        seed=seed,
        steps=steps,
        warm_steps=warm_steps,
        batch_size=batch_size,
        optimizer=optimizer,
        learning_rate=learning_rate,
        precision="bf16" if precision == "bf16" else "fp32",
    )
    trainer = Trainer(plan, np.load(pool, mmap_mode="r"), device)
    out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"recipe_commits": [], "device": device_name(device), "threads": threads}
    if (out / CHECKPOINT).exists():
        trainer.load(out)
        facts = json.loads((out / STATE).read_text())
    commits = list(
        dict.fromkeys([*facts["recipe_commits"], recipe_commit()])
    )  # a resumed run may have several
    (out / STATE).write_text(json.dumps(facts | {"recipe_commits": commits, "plan": asdict(plan)}, indent=1))
    run_training(trainer, out, stop_at=stop_at)


def device_name(device: str) -> str:
    """Return what the device calls itself."""
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "cpu")
