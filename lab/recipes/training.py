# SPDX-License-Identifier: Apache-2.0
"""What all training runs share: Lightning's loop over numbered steps, and checkpoints that resume exactly."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, Timer, TQDMProgressBar, WeightAveraging
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

CHECKPOINT = "last.ckpt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Length and machine of a training run.

    Attributes:
        steps: Optimizer steps in all; may change between runs of one folder.
        stop_at: Step to stop at before the end, to resume later.
        save_every: Steps between checkpoints, each after a validation.
        log_every: Steps between rows of the log.
        clip_norm: Largest norm of all gradients together; not clipped if ``None``.
        device: Device as torch names it; ``"auto"`` takes an accelerator if there is one.
        workers: Processes that draw batches; 0 draws in this one.
    """

    steps: int
    stop_at: int | None = None
    save_every: int = 250
    log_every: int = 50
    clip_norm: float | None = 1.0
    device: str = "auto"
    workers: int = 0


class ScheduledModule(pl.LightningModule):
    """A module whose learning rate depends on the step alone, so that ``steps`` may change on resume."""

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        raise NotImplementedError

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """Set the learning rate."""
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.rate(self.global_step)


class NumberedBatches(IterableDataset[object]):
    """The batches of steps ``start``, ``start + 1`` and so on, each from its number only.

    Args:
        batch_of: Draws the batch of a step.
        start: First step.
    """

    def __init__(self, batch_of: Callable[[int], object], start: int) -> None:
        self.batch_of, self.start = batch_of, start

    def __iter__(self) -> Iterator[object]:
        worker = get_worker_info()  # batches are taken from the workers in turn
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return map(self.batch_of, count(self.start + first, stride))


class StepData(pl.LightningDataModule):
    """Batches from the trainer's step on, asked for at the start of each epoch and after a resume.

    Args:
        batch_of: Draws the batch of a step.
        examples: Batches for validation; none skips it.
        workers: Processes that draw.
    """

    def __init__(self, batch_of: Callable[[int], object], examples: Sequence[object], workers: int) -> None:
        super().__init__()
        self.batch_of, self.examples, self.workers = batch_of, list(examples), workers

    def train_dataloader(self) -> DataLoader[object]:
        """Return the batches of the steps to come."""
        assert self.trainer is not None
        batches = NumberedBatches(self.batch_of, self.trainer.global_step)
        return DataLoader(batches, batch_size=None, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader[object]:
        """Return the examples."""
        return DataLoader(self.examples, batch_size=None)  # pyright: ignore[reportArgumentType] - a list will do


def fit(
    module: pl.LightningModule,
    batch_of: Callable[[int], object],
    folder: Path,
    run: Run,
    *,
    mean: WeightAveraging | None = None,
    examples: Sequence[object] = (),
) -> None:
    """Train a module, or resume from the checkpoint in its folder; a kill costs the steps since then only.

    An epoch is ``save_every`` steps, then validation, then the checkpoint. In the end the module holds what
    the last checkpoint calls its ``state_dict``: the mean weights, if a mean is kept.

    Args:
        module: Module that is trained, in place.
        batch_of: Draws the batch of a step, from its number only.
        folder: Folder of ``last.ckpt`` and of the logs, one for each start.
        run: Length and machine.
        mean: Keeps a running mean of the weights, which validation uses.
        examples: Batches for validation.
    """
    kind, _, index = run.device.partition(":")
    checkpoint = ModelCheckpoint(
        folder,
        filename=CHECKPOINT.removesuffix(".ckpt"),
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    trainer = pl.Trainer(
        accelerator=kind,
        devices=[int(index)] if index else 1,
        max_epochs=-1,
        max_steps=min(run.steps, run.stop_at or run.steps),
        limit_train_batches=run.save_every,
        limit_val_batches=len(examples),
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        gradient_clip_val=run.clip_norm,
        logger=CSVLogger(folder, name="log"),
        log_every_n_steps=min(run.log_every, run.save_every),
        callbacks=[*([] if mean is None else [mean]), Timer(), checkpoint, TQDMProgressBar()],
        enable_model_summary=False,
    )
    last = folder / CHECKPOINT
    with warnings.catch_warnings():
        # drawing is cheap beside a step, a folder with a checkpoint is what a run resumes from, the batches
        # of an epoch go on from any step, and not every recipe has a validation
        warnings.filterwarnings("ignore", ".*does not have many workers")
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        warnings.filterwarnings("ignore", ".*ended before the epoch ended")
        warnings.filterwarnings("ignore", ".*but have no `validation_step`")
        trainer.fit(
            module,
            datamodule=StepData(batch_of, examples, run.workers),
            ckpt_path=last if last.exists() else None,
            weights_only=True,
        )
    # a finished run is not entered again, and would leave the weights of the last step instead of their mean
    module.load_state_dict(torch.load(last, map_location=module.device, weights_only=True)["state_dict"])
