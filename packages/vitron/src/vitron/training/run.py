# SPDX-License-Identifier: Apache-2.0
"""A whole stage from data on disk, by the Lightning Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import CSVLogger

from vitron.data.example import Example
from vitron.data.files import read_example, read_samples
from vitron.data.schema import Sample
from vitron.model.encoding import ConversationEncoder
from vitron.model.hf.modeling import VitronForConditionalGeneration
from vitron.model.hf.processing import VitronProcessor
from vitron.training.data import VitronData
from vitron.training.module import KeepLast, TrainableSetCheck, VitronModule
from vitron.training.stages import Stage

__all__ = ["Examples", "fit_stage"]


class Examples(Sequence[Example]):
    """The dialogues of a data set; media are read when they are asked for.

    Args:
        source: Folder with ``data.jsonl``, or the file.

    Raises:
        DataError: If a line is no sample.
    """

    def __init__(self, source: Path) -> None:
        self.folder = source if source.is_dir() else source.parent
        self.samples: list[Sample] = [sample for _, sample in read_samples(source)]
        if not self.samples:
            raise ValueError(f"{source} holds no samples")
        self.tasks = [sample.task for sample in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [read_example(sample, self.folder) for sample in self.samples[index]]
        return read_example(self.samples[index], self.folder)


def fit_stage(
    built: tuple[VitronForConditionalGeneration, VitronProcessor],
    stage: Stage,
    data: Path,
    out: Path,
    *,
    validation: Path | None = None,
    seed: int = 0,
    workers: int = 0,
    every: int = 500,
    **trainer_options: Any,
) -> Path | None:
    """Run a stage, or go on with one that was cut.

    Args:
        built: Model and processor.
        stage: What learns, and how.
        data: Folder of a data set.
        out: Checkpoint, ``logs/version_n/metrics.csv`` and at the end ``model/`` go here.
        validation: Folder of another.
        seed: Of the order.
        workers: Processes that read ahead.
        every: Steps between checkpoints, and between validations.
        **trainer_options: To the Trainer, as ``devices`` or ``strategy``.

    Returns:
        Folder of the model; ``None`` in all processes but the first.
    """
    model, processor = built
    settings = stage.optimisation
    found = VitronData(
        ConversationEncoder(processor, model.config),
        Examples(data),
        Examples(validation) if validation else (),
        batch_size=settings.batch_size,
        steps=settings.steps,
        shares=stage.tasks,
        later=stage.tasks_later,
        seed=seed,
        workers=workers,
    )
    keep = KeepLast(out / "last.ckpt", every)
    trainer = pl.Trainer(
        max_epochs=1,
        enable_checkpointing=False,
        callbacks=[keep, TrainableSetCheck(), RichProgressBar()],
        logger=CSVLogger(out, name="logs"),
        log_every_n_steps=min(50, every),
        val_check_interval=min(every, settings.steps) if validation else None,
        limit_val_batches=1.0 if validation else 0,
        enable_model_summary=False,
        default_root_dir=out,
        **trainer_options,
    )
    last = out / "last.ckpt"
    module = VitronModule(model.train(), stage)
    # the checkpoint is one that this very run wrote; optimisers keep more than tensors in it
    trainer.fit(module, datamodule=found, ckpt_path=last if last.exists() else None, weights_only=False)
    if trainer.interrupted:
        raise RuntimeError(f"stopped; the same command goes on from {last}")
    if not trainer.is_global_zero:
        return None
    folder = out / "model"
    merge_adapters(model.eval())
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def merge_adapters(model: VitronForConditionalGeneration) -> None:
    """Add low-rank adapters to the weights they adapt, so that whoever loads the model needs no PEFT."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    words = model.language_model
    for name, each in list(words.named_modules()):
        if isinstance(each, BaseTunerLayer):
            each.merge()
            parent, _, child = name.rpartition(".")
            setattr(words.get_submodule(parent), child, each.get_base_layer())
