# SPDX-License-Identifier: Apache-2.0
"""What the two training runs share: plan, optimizer, learning rate, running mean of the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning.callbacks import WeightAveraging
from timm.optim import Muon
from torch import Tensor, nn

from recipes.training import Run, ScheduledModule

OptimizerName = Literal["adamw", "muon"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Length and speed of a training run.

    Attributes:
        steps: Optimizer steps in all; may change between runs of one folder.
        decay_steps: Last steps, in which the learning rate falls to zero.
        warmup_steps: First steps, in which it rises.
        learning_rate: Peak learning rate.
        optimizer: Optimizer; Muon takes the matrices and convolutions only, AdamW the rest.
        weight_decay: Weight decay of all weights but vectors.
        ema_decay: Decay of the running mean of the weights, reached after some thousand steps.
        save_every: Steps between checkpoints.
        log_every: Steps between rows of the log.
        device: Device as torch names it. Data and noise are drawn on the CPU whatever it is.
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

    def run(self) -> Run:
        """Return what the plan says of the run."""
        return Run(steps=self.steps, save_every=self.save_every, log_every=self.log_every, device=self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderPlan(Plan):
    """The plan of the autoencoder."""

    steps: int = 12_000
    decay_steps: int = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderPlan(Plan):
    """The plan of the decoder alone."""

    steps: int = 3_000
    decay_steps: int = 2_000
    weight_decay: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoiserPlan(Plan):
    """The plan of the U-Net."""

    steps: int = 12_000
    decay_steps: int = 3_000
    save_every: int = 250
    log_every: int = 50


def numbered_generator(seed: int, number: int) -> torch.Generator:
    """Return the generator of one step or image, so that a resumed run draws what it would have."""
    # the generator of the CPU looks at the lower 32 bits only, so both numbers must be mixed into them
    mixed = np.random.SeedSequence((seed, number)).generate_state(1)[0]
    return torch.Generator().manual_seed(int(mixed))


def build_optimizer(module: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """Return the optimizer of a plan; Muon is given no embeddings, whose rows are no directions of a map."""
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


class WeightedModule(ScheduledModule):
    """A network that learns from the loss of numbered batches, by the optimizer and the rate of a plan.

    Args:
        network: Network that is trained, in place.
        plan: Length and speed.
        loss_of: Loss of a batch.
        figures_of: Figures of a validation batch, computed with the mean weights.
    """

    def __init__(
        self,
        network: nn.Module,
        plan: Plan,
        loss_of: Callable[[Any], Tensor],
        figures_of: Callable[[Any], Mapping[str, float]] | None = None,
    ) -> None:
        super().__init__()
        self.network, self.plan, self.loss_of, self.figures_of = network, plan, loss_of, figures_of

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        return self.plan.rate(step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer of the plan."""
        return build_optimizer(self.network, self.plan)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss."""
        loss = self.loss_of(batch)
        self.log("loss", loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=1)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log the figures."""
        assert self.figures_of is not None
        self.log_dict(dict(self.figures_of(batch)), batch_size=1)


def mean_weights(decay: float) -> WeightAveraging:
    """Return the running mean of the weights, which forgets faster in the first thousand steps."""

    def average(means: Any, weights: Any, steps: Any) -> None:
        share = 1 - min(decay, (1 + int(steps)) / (10 + int(steps)))
        torch._foreach_lerp_(means, weights, share)

    return WeightAveraging(use_buffers=False, multi_avg_fn=average)
