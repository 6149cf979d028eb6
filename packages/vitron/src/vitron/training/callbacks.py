# SPDX-License-Identifier: Apache-2.0
"""Callbacks of Lightning: the latest checkpoint, and whether everything that should learn does."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from torch import nn
from torch.utils.hooks import RemovableHandle

from vitron.training.module import VitronModule
from vitron.training.resume import RUN_KEY

__all__ = ["LastCheckpoint", "TrainableSetCheck"]

_log = logging.getLogger(__name__)


class TrainableSetCheck(pl.Callback):
    """Stops a run in which a trainable parameter is used but gets no gradient.

    The published script froze its own adapters after adding them; this check would have found it. Parameters
    of layers that were not used, such as the region encoder's where no conversation has regions, are
    reported once.

    Args:
        patience: Steps after which every trainable parameter must have had a gradient.
    """

    def __init__(self, patience: int = 50) -> None:
        self.patience = patience
        self.waiting = set[str]()
        self.used = set[str]()
        self._hooks: list[RemovableHandle] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the trainable parameters, and watch which layers are used."""
        model = cast(VitronModule, pl_module).model
        learning = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self.waiting = set(learning)
        for prefix, layer in model.named_modules():
            own = {f"{prefix}.{name}" for name, _ in layer.named_parameters(recurse=False)} & self.waiting
            if own:
                self._hooks.append(layer.register_forward_pre_hook(self._note(own)))
        total = sum(each.numel() for each in learning.values())
        _log.info("stage %s: %s trainable parameters", cast(VitronModule, pl_module).stage.name, f"{total:,}")

    def _note(self, names: set[str]) -> Any:
        def note(_layer: nn.Module, _inputs: Any) -> None:
            self.used |= names

        return note

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remove parameters that had a gradient.

        Raises:
            RuntimeError: If one that was used had none after ``patience`` steps.
        """
        if not self._hooks:
            return
        model = cast(VitronModule, pl_module).model
        for name, each in model.named_parameters():
            if name in self.waiting and each.grad is not None and each.grad.any():
                self.waiting.discard(name)
        if self.waiting and batch_idx + 1 < self.patience:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        idle = self.waiting & self.used
        if idle:
            raise RuntimeError(
                f"{len(idle)} trainable parameters had no gradient in {self.patience} steps, "
                f"such as {min(idle)}: give losses that reach them, or freeze them"
            )
        if self.waiting:
            _log.warning(
                "%d trainable parameters were not used in %d steps, such as %s: the data do not need them",
                len(self.waiting),
                self.patience,
                min(self.waiting),
            )


class LastCheckpoint(pl.Callback):
    """Keeps the latest checkpoint, written after the step that it holds.

    Lightning's own callback takes manual optimisation to be in the middle of a step.

    Args:
        path: File of the checkpoint.
        every: Steps between checkpoints; the last step has one as well.
        run: What the run depends on, kept in the checkpoint; see :func:`vitron.training.resume.describe_run`.
    """

    def __init__(self, path: Path, every: int, run: Mapping[str, Any] | None = None) -> None:
        self.path, self.every, self.run = path, every, run

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store what the run depends on."""
        if self.run is not None:
            checkpoint[RUN_KEY] = dict(self.run)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the checkpoint when it is due."""
        done = cast(VitronModule, pl_module).done
        if done % self.every and done != cast(VitronModule, pl_module).stage.optimisation.steps:
            return
        part = self.path.with_suffix(".part")
        trainer.save_checkpoint(part, weights_only=False)  # Lightning reports a choice left to it
        if trainer.is_global_zero:
            part.replace(self.path)
