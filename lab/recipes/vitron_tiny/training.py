# SPDX-License-Identifier: Apache-2.0
"""Training of the small model: all tasks at once, then the shared signals against a discriminator."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from vitron.model import ConversationEncoder, VitronForConditionalGeneration
from vitron.model.encoding import Encoded
from vitron.training import Stage, VitronData, VitronModule
from vitron.training.callbacks import LastCheckpoint
from vitron.training.stages import Losses, Optimisation, Synergy

from recipes.vitron_tiny.building import Size, make_config, make_model, make_processor, make_tokenizer
from recipes.vitron_tiny.pool import read_pool
from recipes.vitron_tiny.tasks import corpus
from recipes.vitron_tiny.tower import read_tower

__all__ = ["prepare", "stage_of", "train"]


HARD = "referring_hard"
# from scratch: what must be seen takes longest to learn, how calls are written is learnt in minutes
SHARES = {
    "caption": 0.05,
    "grounding": 0.02,
    "question": 0.04,
    "region_caption": 0.13,
    "referring_segmentation": 0.27,
    HARD: 0.07,
    "sketch_segmentation": 0.06,
    "editing": 0.07,
    "restoration": 0.01,
    "text_to_image": 0.05,
    "text_to_video": 0.01,
    "image_to_video": 0.02,
    "video_question": 0.01,
    "span_grounding": 0.01,
    "tracking": 0.07,
    "video_editing": 0.01,
    "chains": 0.04,
    "no_call": 0.03,
    "conversation": 0.08,
}
# phrases of place come later, for until objects are told apart they teach nothing
LATER = {HARD: 0.14, "referring_segmentation": 0.12, "region_caption": 0.3, "question": 0.08}
# from a trained model: conversations, which hold all tasks, and what needs sight
POLISH = {
    "caption": 0.01,
    "grounding": 0.005,
    "question": 0.05,
    "region_caption": 0.08,
    "referring_segmentation": 0.09,
    HARD: 0.06,
    "sketch_segmentation": 0.02,
    "editing": 0.05,
    "restoration": 0.005,
    "text_to_image": 0.03,
    "text_to_video": 0.005,
    "image_to_video": 0.01,
    "video_question": 0.01,
    "span_grounding": 0.01,
    "tracking": 0.03,
    "video_editing": 0.01,
    "chains": 0.03,
    "no_call": 0.02,
    "conversation": 0.5,
}

RATES = {"joint": 1.5e-3, "polish": 1e-3}  # peaks
LOSSES = Losses(text=1.0, mask=2.0, match=0.5, alignment=0.1, words=1.0)
# a trained model writes most tokens without fault: at weight 1 its text gives a gradient of norm 0.24, masks
# and conditions 0.74 together, a new reader of the signals 7.5
POLISH_LOSSES = Losses(text=8.0, mask=1.5, match=0.3, alignment=0.05, words=0.0)

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


def stage_of(
    name: str, steps: int, *, batch_size: int = 64, lr: float | None = None, **synergy: Any
) -> Stage:
    """Return a stage of this recipe.

    Args:
        name: ``joint``: all that there is learns from all tasks, since there is no pretrained language model
            to align with. ``polish``: the same from a model so trained, half of it conversations.
            ``synergy``: ``joint`` with a discriminator (paper, stage 3), at a lower rate.
        steps: Number of steps.
        batch_size: Conversations of a step.
        lr: Peak learning rate; by default that of the stage.
        synergy: Settings of the discriminator.
    """
    rate = lr or RATES.get(name, 3e-4)
    return Stage(
        name=name,
        summary="the small model, all tasks at once",
        train=("*",),
        losses=POLISH_LOSSES if name == "polish" else LOSSES,
        synergy=Synergy.model_validate({"width": 64, "layers": 2, "heads": 4} | synergy),
        optimisation=Optimisation(
            lr=rate,
            groups={"vision_tower": rate / 4},
            weight_decay=0.05,
            warmup=0.04,
            steps=steps,
            batch_size=batch_size,
        ),
        tasks=dict(POLISH if name == "polish" else SHARES),
        tasks_later={} if name == "polish" else dict(LATER),
    )


def train(
    folder: Path,
    pool: Path,
    stage: Stage,
    *,
    init: Path | None = None,
    seed: int = 0,
    threads: int = 1,
    device: str = "cpu",
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
        threads: Number of CPU threads.
        device: Accelerator, as Lightning names it.
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
        devices=1,
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
    module = VitronModule(model.train(), stage, seed)
    data = _training_data(pool, encoder, stage, seed)
    trainer.fit(module, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=False)
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


def _training_data(pool: Path, encoder: ConversationEncoder, stage: Stage, seed: int) -> VitronData:
    drawn, settings = read_pool(pool), stage.optimisation
    return VitronData(
        encoder,
        separate_hard_phrases(drawn, encoder) if HARD in stage.tasks else drawn,
        batch_size=settings.batch_size,
        steps=settings.steps,
        shares=stage.tasks,
        later=stage.tasks_later,
        seed=seed,
        parts=3,
    )
