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
    """Machine and memory of a training run; the first six are arguments of the Lightning Trainer.

    Attributes:
        accelerator: Accelerator, as Lightning names it: auto, cpu or gpu.
        devices: Number of devices, or auto.
        num_nodes: Number of machines.
        strategy: Strategy, as Lightning names it: auto, ddp or fsdp.
        precision: Precision, as Lightning names it: 32-true or bf16-mixed.
        num_workers: Number of data loader processes.
        checkpoint_every: Steps between checkpoints, and between validations.
        micro_batches: Number of parts in which the conversations of a step are read, with accumulated
            gradients: less memory, the same step.
        gradient_checkpointing: Compute activations again in the backward pass instead of storing them.
        deterministic: Deterministic algorithms only, for equal runs on CUDA; on CPU runs are equal anyway.
        keep_adapters: Save adapters and new weights alone instead of merging adapters into a whole model.
    """

    accelerator: str = "auto"
    devices: str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    num_workers: int = 0
    checkpoint_every: int = 500
    micro_batches: int = 1
    gradient_checkpointing: bool = False
    deterministic: bool = False
    keep_adapters: bool = False

    def __post_init__(self) -> None:
        least = {"num_nodes": 1, "num_workers": 0, "checkpoint_every": 1, "micro_batches": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name} must be at least {value}, got {getattr(self, name)}")
