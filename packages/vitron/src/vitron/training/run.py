# SPDX-License-Identifier: Apache-2.0
"""Training of a stage from data on disk, by the Lightning Trainer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from common_kernels.runtime.lightning import expected_warnings
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.exceptions import (
    MisconfigurationException,  # pyright: ignore[reportPrivateImportUsage]  # Fabric is not required
)

from vitron.data.conditions import compute_conditions
from vitron.model.checkpoints import save_adapters, save_model
from vitron.model.encoding import ConversationEncoder
from vitron.model.hf.configuration import VitronConfig
from vitron.model.hf.modeling import VitronForConditionalGeneration
from vitron.training.adapters import merge_adapters
from vitron.training.callbacks import LastCheckpoint, TrainableSetCheck
from vitron.training.conditions import add_condition_heads
from vitron.training.data import VitronData
from vitron.training.folders import Examples
from vitron.training.module import VitronModule
from vitron.training.options import TrainerOptions
from vitron.training.resume import check_checkpoint, describe_run
from vitron.training.stages import Stage

__all__ = ["fit_stage"]

_log = logging.getLogger(__name__)


def fit_stage(
    model: VitronForConditionalGeneration,
    processor: Any,
    stage: Stage,
    data: Path,
    out: Path,
    *,
    validation: Path | None = None,
    seed: int = 0,
    options: TrainerOptions | None = None,
    **trainer: Any,
) -> Path | None:
    """Train a stage, or resume one that was stopped.

    Two runs with equal arguments give equal weights, also if one of them was killed and resumed.

    Args:
        model: Model.
        processor: Processor of the model.
        stage: Trainable parameters, losses and optimisation.
        data: Folder of a data set.
        out: Folder of the checkpoint, ``logs/version_n/metrics.csv`` and the trained ``model/``.
        validation: Folder of a data set for validation.
        seed: Random seed of the order, of new weights and of dropout.
        options: Machine and memory; the defaults of :class:`TrainerOptions` if ``None``.
        trainer: Further arguments of the Lightning Trainer, such as ``logger`` and ``callbacks``.

    Returns:
        Folder of the trained model; ``None`` in all processes but the first.

    Raises:
        RuntimeError: If the run was interrupted.
        ValueError: If adapters are to be kept and the model has no base model, the folder holds the
            checkpoint of another run, or the Trainer cannot be set up.
    """
    options = options or TrainerOptions()
    if options.keep_adapters and model.config.base_model is None:
        raise ValueError("keep_adapters needs a model that was attached to a base model: this one is whole")
    settings = stage.optimisation
    if options.gradient_checkpointing:
        # the name that transformers gives up in version 6
        enable: Any = getattr(model, "activation_checkpointing_enable", None)
        (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
    examples = _with_conditions(stage, data, model, seed)
    data_module = VitronData(
        ConversationEncoder(processor, cast("VitronConfig", model.config)),
        examples,
        Examples(validation) if validation else (),
        batch_size=settings.batch_size,
        steps=settings.steps,
        shares=stage.tasks,
        later=stage.tasks_later,
        seed=seed,
        num_workers=options.num_workers,
        parts=options.micro_batches,
    )
    last, run = out / "last.ckpt", describe_run(model, stage, data, seed)
    try:
        runner = pl.Trainer(**_trainer_arguments(stage, out, options, validation is not None, trainer, run))
    except MisconfigurationException as error:  # such as a GPU that is not there
        raise ValueError(str(error)) from error
    run["processes"] = runner.num_devices * runner.num_nodes  # each draws batches of its own
    if last.exists():
        check_checkpoint(last, run)
    if trainer.get("logger", True) is not False:
        for logger in runner.loggers:
            logger.log_hyperparams({"stage": stage.model_dump(mode="json"), "seed": seed})
    module = VitronModule(model.train(), stage, seed)
    with expected_warnings("Grad strides do not match"):
        runner.fit(
            module, datamodule=data_module, ckpt_path=last if last.exists() else None, weights_only=True
        )
    if runner.interrupted:
        raise RuntimeError(f"interrupted; the same command resumes from {last}")
    if not runner.is_global_zero:
        return None
    return _save(model, processor, out / "model", keep=options.keep_adapters)


def _with_conditions(stage: Stage, data: Path, model: Any, seed: int) -> Examples:
    """Compute the conditions that a stage asks for, add heads for them, and return the conversations."""
    for module, wanted in stage.conditions.items():
        compute_conditions(data, module, wanted.pipeline)
    examples = Examples(data)
    if stage.losses.alignment and examples.conditions:
        add_condition_heads(model, examples.conditions, seed)
    elif stage.losses.alignment:
        _log.warning(
            "stage %s: the data have no conditions, so no condition head learns: see vitron data conditions",
            stage.name,
        )
    return examples


def _trainer_arguments(
    stage: Stage,
    out: Path,
    options: TrainerOptions,
    validates: bool,
    given: Mapping[str, Any],
    run: Mapping[str, Any],
) -> dict[str, Any]:
    every = options.checkpoint_every
    more: Any = given.get("callbacks") or []
    more = [more] if isinstance(more, pl.Callback) else list(more)
    own: list[pl.Callback] = [LastCheckpoint(out / "last.ckpt", every, run), TrainableSetCheck()]
    if given.get("enable_progress_bar", True) and not any(isinstance(each, ProgressBar) for each in more):
        own.append(RichProgressBar())
    return {
        "max_epochs": 1,
        "enable_checkpointing": False,
        "logger": CSVLogger(out, name="logs"),
        "log_every_n_steps": min(50, every, stage.optimisation.steps),
        "val_check_interval": min(every, stage.optimisation.steps) if validates else None,
        "limit_val_batches": 1.0 if validates else 0,
        "enable_model_summary": False,
        "default_root_dir": out,
        "accelerator": options.accelerator,
        "devices": int(options.devices) if options.devices.isdecimal() else options.devices,
        "num_nodes": options.num_nodes,
        "strategy": options.strategy,
        "precision": options.precision,
        "deterministic": options.deterministic or None,
        **given,
        "callbacks": [*own, *more],
    }


def _save(model: VitronForConditionalGeneration, processor: Any, folder: Path, *, keep: bool) -> Path:
    model.eval()
    cast("VitronConfig", model.config).training_domain = None  # the data may well be photographs
    if keep:
        save_adapters(model, processor, folder)
        return folder
    merge_adapters(model)
    save_model(model, processor, folder)
    return folder
