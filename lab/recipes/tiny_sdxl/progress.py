# SPDX-License-Identifier: Apache-2.0
"""What the two trainings share: learning rate, running mean of the weights, log, checkpoints that resume."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from timm.optim import Muon
from torch import Tensor, nn

OptimizerName = Literal["adamw", "muon"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Length and speed of a training.

    Attributes:
        steps: Optimiser steps in all; may change between runs of one folder.
        decay_steps: So many of the last ones fall to zero.
        warmup_steps: So many of the first ones rise.
        learning_rate: Peak.
        optimizer: Muon takes the matrices and convolutions only, AdamW the rest.
        weight_decay: Of all weights but vectors.
        ema_decay: Of the running mean of the weights, reached after some thousand steps.
        save_every: Steps between checkpoints.
        log_every: Steps between lines of the log.
        device: What computes, as torch names it. Data and noise are drawn on the processor whatever it is.
    """

    steps: int
    decay_steps: int
    warmup_steps: int = 100
    learning_rate: float = 2e-3
    optimizer: OptimizerName = "muon"
    weight_decay: float = 1e-4
    ema_decay: float = 0.999
    save_every: int = 500
    log_every: int = 100
    device: str = "cpu"

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: up, flat, then straight down to zero."""
        rise = min(1.0, (step + 1) / self.warmup_steps)
        fall = min(1.0, (self.steps - step) / max(self.decay_steps, 1))
        return self.learning_rate * max(0.0, min(rise, fall))


def numbered_generator(seed: int, number: int) -> torch.Generator:
    """Return the source of noise of one step or picture, so that a resumed run draws what it would have."""
    # the generator of the CPU looks at the lower 32 bits only, so both numbers must be mixed into them
    mixed = np.random.SeedSequence((seed, number)).generate_state(1)[0]
    return torch.Generator().manual_seed(int(mixed))


def build_optimizer(module: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """Return the optimiser of a plan; Muon is given no embeddings, whose rows are no directions of a map."""
    tables = {id(p) for part in module.modules() if isinstance(part, nn.Embedding) for p in part.parameters()}
    weights = [p for p in module.parameters() if p.requires_grad]
    maps = [p for p in weights if p.ndim >= 2 and id(p) not in tables]
    rest = [p for p in weights if p.ndim < 2 or id(p) in tables]
    if plan.optimizer == "adamw":
        groups = [{"params": maps, "weight_decay": plan.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.98), foreach=True)
    groups = [
        {"params": maps, "weight_decay": plan.weight_decay},
        {"params": rest, "weight_decay": 0.0, "use_fallback": True},
    ]
    return Muon(groups, lr=plan.learning_rate)


class Trainer:
    """A module in training, with everything needed to stop at any step and go on.

    Args:
        module: What is trained, in place.
        plan: Length and speed.
        folder: Of ``<name>.pt`` (the checkpoint) and ``<name>.csv`` (the log).
        name: Of the files.
    """

    def __init__(self, module: nn.Module, plan: Plan, folder: Path, name: str) -> None:
        self.module, self.plan = module, plan
        self.checkpoint, self.log = folder / f"{name}.pt", folder / f"{name}.csv"
        folder.mkdir(parents=True, exist_ok=True)
        module.to(plan.device)
        self.optimizer = build_optimizer(module, plan)
        self.mean = {key: value.detach().clone() for key, value in self._weights()}
        self.step = 0
        self.seconds = 0.0
        if self.checkpoint.exists():
            self.load(self.checkpoint)

    def _weights(self) -> Iterable[tuple[str, Tensor]]:
        return self.module.named_parameters()

    def load(self, path: Path) -> None:
        """Take up weights, their mean, the optimiser and the step from a file."""
        state = torch.load(path, weights_only=True, map_location=self.plan.device)
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.mean, self.step, self.seconds = state["mean"], state["step"], state["seconds"]

    def save(self) -> None:
        """Write the checkpoint; a reader never meets half a file."""
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "mean": self.mean,
            "step": self.step,
            "seconds": self.seconds,
        }
        part = self.checkpoint.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.checkpoint)

    def fit(
        self,
        loss_of: Callable[[int], Tensor],
        *,
        figures: Callable[[], Mapping[str, float]] | None = None,
        figures_every: int = 1000,
    ) -> None:
        """Train to the last step of the plan.

        Args:
            loss_of: Gives the loss of a step, from its number only.
            figures: Gives further columns of the log, computed with the mean weights in place.
            figures_every: Steps between two calls of it.
        """
        self.module.train()
        total, count, begun = 0.0, 0, time.perf_counter()
        while self.step < self.plan.steps:
            for group in self.optimizer.param_groups:
                group["lr"] = self.plan.rate(self.step)
            loss = loss_of(self.step)
            loss.backward()
            nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self._average()
            self.step += 1
            total, count = total + loss.item(), count + 1
            last = self.step == self.plan.steps
            more: Mapping[str, float] = {}
            if figures is not None and (last or self.step % figures_every == 0):
                more = self.with_mean(figures)
            if last or self.step % self.plan.log_every == 0:
                now = time.perf_counter()
                self.seconds, begun = self.seconds + now - begun, now
                self._write({"step": self.step, "minutes": self.seconds / 60, "loss": total / count, **more})
                total, count = 0.0, 0
            if last or self.step % self.plan.save_every == 0:
                self.save()

    def _average(self) -> None:
        decay = min(self.plan.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            weights = dict(self._weights())
            torch._foreach_lerp_([self.mean[key] for key in weights], list(weights.values()), 1 - decay)

    def with_mean(self, function: Callable[[], T]) -> T:
        """Call a function while the module holds the mean weights, in evaluation mode."""
        kept = {key: value.detach().clone() for key, value in self._weights()}
        self._set(self.mean)
        self.module.eval()
        try:
            with torch.no_grad():
                return function()
        finally:
            self._set(kept)
            self.module.train()

    def adopt_mean(self) -> None:
        """Put the mean weights into the module for good."""
        self._set(self.mean)
        self.module.eval()

    def _set(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for key, value in self._weights():
                value.copy_(values[key])

    def _write(self, row: Mapping[str, float]) -> None:
        columns = ("step", "minutes", "loss", "figure")
        fresh = not self.log.exists()
        figure = " ".join(f"{key}={value:.4f}" for key, value in row.items() if key not in columns)
        with self.log.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(columns)
            writer.writerow([row["step"], f"{row['minutes']:.2f}", f"{row['loss']:.5f}", figure])
