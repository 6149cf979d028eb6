# SPDX-License-Identifier: Apache-2.0
"""Training on Lightning; the only file of the package that imports it (extra ``train``)."""

from __future__ import annotations

import random
from collections.abc import Sequence

try:
    import pytorch_lightning as pl
except ImportError as error:  # pragma: no cover - the test environment has the extra
    raise ImportError("semanir.training needs the extra 'train': pip install 'semanir[train]'") from error

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from semanir.metrics import psnr


def warmup_stable_decay(step: int, *, max_steps: int, warmup_steps: int, decay_fraction: float) -> float:
    """Return the factor on the learning rate at a step.

    Linear from 0 over the warm-up, 1 until the decay, then linear to 0 at ``max_steps``. Unlike a cosine,
    a run that is resumed with another ``max_steps`` was on the right schedule all along.

    Args:
        step: Optimiser steps taken.
        max_steps: Length of the run.
        warmup_steps: Length of the rise.
        decay_fraction: Share of ``max_steps`` spent falling, in (0, 1].
    """
    decay_steps = max(1, round(max_steps * decay_fraction))
    rise = min(1.0, (step + 1) / max(1, warmup_steps))
    return rise * min(1.0, max(0.0, (max_steps - step) / decay_steps))


class SemanIRModule(pl.LightningModule):
    """Loss, schedule and validation around any image-to-image network.

    Args:
        network: Maps a degraded batch ``(B, C, H, W)`` to a clean one.
        optimizer: Optimiser over the network's parameters, at its peak learning rate.
        max_steps: Length of the run, in optimiser steps.
        warmup_steps: Linear rise of the learning rate.
        decay_fraction: Share of the run in which the learning rate falls to zero.
        random_k: Numbers of keys to draw from, one per step for all stages; empty keeps the
            network's own. Every rank draws the same, from the step number.

    Batches are pairs (degraded, clean) of ``(B, C, H, W)`` in [0, 1].

    Source: L1 loss and random k: SemanIR, arXiv 2405.20008, Sec. 4.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        *,
        max_steps: int,
        warmup_steps: int = 100,
        decay_fraction: float = 0.3,
        random_k: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer = optimizer
        self.max_steps = max_steps
        self.warmup_steps = warmup_steps
        self.decay_fraction = decay_fraction
        self.random_k = tuple(random_k)

    def forward(self, degraded: Tensor) -> Tensor:  # noqa: D102
        return self.network(degraded)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: D102
        degraded, clean = batch
        if self.random_k:
            k = random.Random(self.global_step).choice(self.random_k)
            restored = self.network(degraded, k=k)
        else:
            restored = self.network(degraded)
        loss = F.l1_loss(restored, clean)
        self.log("train/l1", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:  # noqa: D102
        degraded, clean = batch
        restored = self.network(degraded).clamp(0, 1)
        value = torch.stack([psnr(r, c) for r, c in zip(restored, clean, strict=True)]).mean()
        self.log("val/psnr", value, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:  # noqa: D102
        def factor(step: int) -> float:
            return warmup_stable_decay(
                step,
                max_steps=self.max_steps,
                warmup_steps=self.warmup_steps,
                decay_fraction=self.decay_fraction,
            )

        schedule = LambdaLR(self.optimizer, factor)
        return {"optimizer": self.optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
