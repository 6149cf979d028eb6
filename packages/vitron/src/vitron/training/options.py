# SPDX-License-Identifier: Apache-2.0
"""Options of a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vitron.training.stages import Stage

__all__ = ["StageOverrides", "TrainerOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOverrides:
    """Values that replace those of the stage.

    Attributes:
        steps: Number of training steps; default is the stage's.
        batch_size: Conversations per step and device; default is the stage's.
        lr: Peak learning rate; default is the stage's.
    """

    steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "lr"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")

    def apply(self, stage: Stage) -> Stage:
        """Return the stage with these values."""
        given = {"steps": self.steps, "batch_size": self.batch_size, "lr": self.lr}
        changes = {name: value for name, value in given.items() if value is not None}
        return stage.model_copy(update={"optimisation": stage.optimisation.model_copy(update=changes)})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerOptions:
    """Arguments of the Lightning Trainer.

    Attributes:
        accelerator: Accelerator, as Lightning names it: auto, cpu or gpu.
        devices: Number of devices, or auto.
        num_nodes: Number of machines.
        strategy: Strategy, as Lightning names it: auto, ddp or fsdp.
        precision: Precision, as Lightning names it: 32-true or bf16-mixed.
        num_workers: Number of data loader processes.
        checkpoint_every: Steps between checkpoints, and between validations.
    """

    accelerator: str = "auto"
    devices: str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    num_workers: int = 0
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for name, least in (("num_nodes", 1), ("num_workers", 0), ("checkpoint_every", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
