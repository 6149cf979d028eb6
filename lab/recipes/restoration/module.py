# SPDX-License-Identifier: Apache-2.0
"""Loss and schedule of the restoration networks, whatever their network and optimiser."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


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


class RestorationModule(pl.LightningModule):
    """Loss and schedule around any image-to-image network.

    Args:
        network: Maps a degraded batch ``(B, C, H, W)`` to a clean one.
        optimizer: Optimiser over the network's parameters, at its peak learning rate.
        max_steps: Length of the run, in optimiser steps.
        warmup_steps: Linear rise of the learning rate.
        decay_fraction: Share of the run in which the learning rate falls to zero.

    Batches are pairs (degraded, clean) of ``(B, C, H, W)`` in [0, 1].

    Source: L1 loss: SemanIR, arXiv 2405.20008, Sec. 4.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        *,
        max_steps: int,
        warmup_steps: int = 100,
        decay_fraction: float = 0.3,
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer = optimizer
        self.max_steps = max_steps
        self.warmup_steps = warmup_steps
        self.decay_fraction = decay_fraction

    def forward(self, degraded: Tensor) -> Tensor:  # noqa: D102
        return self.network(degraded)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: D102
        degraded, clean = batch
        loss = F.l1_loss(self.network(degraded), clean)
        self.log("train/l1", loss, prog_bar=True)
        return loss

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
