# SPDX-License-Identifier: Apache-2.0
"""Training of the small model: all tasks at once, then the shared signals against a discriminator."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from vitron.model import ConversationEncoder, VitronForConditionalGeneration
from vitron.model.encoding import Encoded
from vitron.training import Stage
from vitron.training.callbacks import LastCheckpoint

from recipes.vitron_tiny.building import Size, make_config, make_model, make_processor, make_tokenizer
from recipes.vitron_tiny.pool import read_pool
from recipes.vitron_tiny.seeing import LabelledData, SeeingModule
from recipes.vitron_tiny.stages import HARD, SEEN
from recipes.vitron_tiny.tasks import corpus
from recipes.vitron_tiny.tower import read_tower

Precision = Literal["32-true", "bf16-mixed"]

__all__ = ["Precision", "prepare", "train"]

# words that make a phrase one of place or of relation
_PLACES = re.compile(r"left|right|top|bottom|middle|above|below|highest|lowest")


def separate_hard_phrases(pool: list[Encoded], encoder: ConversationEncoder) -> list[Encoded]:
    """Give phrases of location and relation a task of their own, with a smaller share.

    Without it, masks cover all objects for very long.
    """
    for each in pool:
        if each.task == "referring_segmentation" and _PLACES.search(encoder.decode(each.ids)):
            each.task = HARD
    return pool


def prepare(folder: Path, *, size: Size = "tiny", seed: int = 0) -> None:
    """Write processor and configuration for pool and training, unless they exist."""
    if (folder / "config.json").exists():
        return
    tokenizer = make_tokenizer(corpus(5, 6000))
    config = make_config(tokenizer, size)
    config.save_pretrained(folder)
    make_processor(tokenizer).save_pretrained(folder)


def train(
    folder: Path,
    pool: Path,
    stage: Stage,
    *,
    init: Path | None = None,
    seed: int = 0,
    threads: int = 1,
    device: str = "cpu",
    processes: int = 1,
    precision: Precision = "32-true",
    every: int = 100,
) -> VitronForConditionalGeneration:
    """Train a stage, or resume from its last checkpoint.

    Args:
        folder: Where :func:`prepare` wrote; checkpoints and the trained model go below it.
        pool: Folder of the pool.
        stage: Stage.
        init: Folder of a trained model to start from; by default new weights, with the tower that
            :func:`recipes.vitron_tiny.tower.distil_tower` wrote.
        seed: Random seed of weights and order.
        threads: Number of CPU threads of each process.
        device: Accelerator, as Lightning names it.
        processes: Number of processes; each takes its share of the conversations of a step.
        precision: Precision, as Lightning names it.
        every: Steps between checkpoints.
    """
    torch.set_num_threads(threads)
    encoder = ConversationEncoder.from_pretrained(folder)
    model = _initial_model(folder, encoder, init, seed)
    runs = folder / f"stage-{stage.name}"
    last = runs / "last.ckpt"
    began = time.monotonic()
    trainer = pl.Trainer(
        accelerator=device,
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        precision=precision,
        max_epochs=1,
        enable_checkpointing=False,
        limit_val_batches=0,
        callbacks=[LastCheckpoint(last, every)],
        logger=CSVLogger(runs, name="logs"),
        log_every_n_steps=20,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=runs,
    )
    # backward through torch's fused attention is slow on CPUs: 1.56 s a step, 1.41 without, one thread, bf16
    model.set_attn_implementation("eager" if device == "cpu" else "sdpa")
    weight = 0.0 if init is None else SEEN
    module = SeeingModule(model.train(), stage, seed, encoder=encoder, weight=weight)
    data = _training_data(
        read_pool(pool, rank=trainer.global_rank, world_size=processes), encoder, stage, seed, processes
    )
    trainer.fit(module, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=False)
    if not trainer.is_global_zero:
        return model
    out = runs / "model"
    model.eval().save_pretrained(out)
    encoder.processor.save_pretrained(out)
    spent = {"stage": stage.model_dump(), "seconds": round(time.monotonic() - began), "seed": seed}
    (runs / "training.json").write_text(json.dumps(spent, indent=1) + "\n")
    return model


def _initial_model(
    folder: Path, encoder: ConversationEncoder, init: Path | None, seed: int
) -> VitronForConditionalGeneration:
    if init is not None:
        return VitronForConditionalGeneration.from_pretrained(init, dtype=torch.float32)
    model = make_model(encoder.config, seed=seed)
    tower = read_tower(folder)
    if tower is not None:
        model.vision_tower.load_state_dict(tower)
    return model


def _training_data(
    drawn: list[Encoded], encoder: ConversationEncoder, stage: Stage, seed: int, processes: int
) -> LabelledData:
    settings = stage.optimisation
    return LabelledData(
        encoder,
        separate_hard_phrases(drawn, encoder) if HARD in stage.tasks else drawn,
        batch_size=settings.batch_size // processes,
        steps=settings.steps,
        shares=stage.tasks,
        later=stage.tasks_later,
        seed=seed,
        parts=3,
    )
