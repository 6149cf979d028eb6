# SPDX-License-Identifier: Apache-2.0
"""Training of a stage from data on disk, by the Lightning Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast, overload

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import CSVLogger

from vitron.data.example import Example
from vitron.data.files import read_example, read_samples
from vitron.data.schema import Sample
from vitron.model.encoding import ConversationEncoder
from vitron.model.hf.configuration import VitronConfig
from vitron.model.hf.modeling import VitronForConditionalGeneration
from vitron.model.hf.processing import VitronProcessor
from vitron.training.data import VitronData
from vitron.training.module import LastCheckpoint, TrainableSetCheck, VitronModule
from vitron.training.options import TrainerOptions
from vitron.training.stages import Stage

__all__ = ["Examples", "fit_stage"]


class Examples(Sequence[Example]):
    """Conversations of a data set; media are read on access.

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
    model: VitronForConditionalGeneration,
    processor: VitronProcessor,
    stage: Stage,
    data: Path,
    out: Path,
    *,
    validation: Path | None = None,
    seed: int = 0,
    options: TrainerOptions | None = None,
) -> Path | None:
    """Train a stage, or resume one that was stopped.

    Args:
        model: Model.
        processor: Processor of the model.
        stage: Trainable parameters, losses and optimisation.
        data: Folder of a data set.
        out: Folder of the checkpoint, ``logs/version_n/metrics.csv`` and the trained ``model/``.
        validation: Folder of a data set for validation.
        seed: Random seed of the order.
        options: Arguments of the Trainer; the defaults of :class:`TrainerOptions` if ``None``.

    Returns:
        Folder of the trained model; ``None`` in all processes but the first.

    Raises:
        RuntimeError: If the run was interrupted.
    """
    options = options or TrainerOptions()
    settings, every = stage.optimisation, options.checkpoint_every
    data_module = VitronData(
        ConversationEncoder(processor, cast("VitronConfig", model.config)),
        Examples(data),
        Examples(validation) if validation else (),
        batch_size=settings.batch_size,
        steps=settings.steps,
        shares=stage.tasks,
        later=stage.tasks_later,
        seed=seed,
        num_workers=options.num_workers,
    )
    last = out / "last.ckpt"
    trainer = pl.Trainer(
        max_epochs=1,
        enable_checkpointing=False,
        callbacks=[LastCheckpoint(last, every), TrainableSetCheck(), RichProgressBar()],
        logger=CSVLogger(out, name="logs"),
        log_every_n_steps=min(50, every),
        val_check_interval=min(every, settings.steps) if validation else None,
        limit_val_batches=1.0 if validation else 0,
        enable_model_summary=False,
        default_root_dir=out,
        accelerator=options.accelerator,
        devices=int(options.devices) if options.devices.isdecimal() else options.devices,
        num_nodes=options.num_nodes,
        strategy=options.strategy,
        precision=options.precision,  # pyright: ignore[reportArgumentType]  # Lightning checks the name
    )
    module = VitronModule(model.train(), stage)
    # this run wrote the checkpoint; the state of optimisers is more than tensors
    trainer.fit(module, datamodule=data_module, ckpt_path=last if last.exists() else None, weights_only=False)
    if trainer.interrupted:
        raise RuntimeError(f"interrupted; the same command resumes from {last}")
    if not trainer.is_global_zero:
        return None
    folder = out / "model"
    merge_adapters(model.eval())
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def merge_adapters(model: VitronForConditionalGeneration) -> None:
    """Merge low-rank adapters into the weights, so that loading the model needs no PEFT."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    language_model = model.language_model
    for name, each in list(language_model.named_modules()):
        if isinstance(each, BaseTunerLayer):
            each.merge()
            parent, _, child = name.rpartition(".")
            setattr(language_model.get_submodule(parent), child, each.get_base_layer())
