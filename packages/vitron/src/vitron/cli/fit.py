# SPDX-License-Identifier: Apache-2.0
"""``vitron fit``: one stage of training, by Lightning."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from common_kernels.runtime.cli import OutputPath, say, warn
from cyclopts import Group, Parameter

from vitron.cli.options import OUTPUT, require
from vitron.training.options import StageOverrides, TrainerOptions

FIT_EXTRA = ("pytorch_lightning", "peft", "yaml")


@Parameter(name="*", group=Group("New model", sort_key=2))
@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Parts of a new model, instead of --model.

    Attributes:
        language_model: Pretrained language model (folder or hub id).
        vision_tower: Pretrained vision tower (folder or hub id).
        template: Chat template.
    """

    language_model: str | None = None
    vision_tower: str | None = None
    template: str = "chatml"

    def __post_init__(self) -> None:
        if (self.language_model is None) != (self.vision_tower is None):
            raise ValueError("a new model needs both --language-model and --vision-tower")


def fit(
    data: Path,
    /,
    *,
    output: OutputPath,
    stage: str = "1.2",
    model: str = "vitron-tiny",
    validation: Path | None = None,
    overrides: Annotated[
        StageOverrides, Parameter(name="*", group=Group("Stage", sort_key=1))
    ] = StageOverrides(),
    parts: Parts = Parts(),
    trainer: Annotated[
        TrainerOptions, Parameter(name="*", group=Group("Trainer", sort_key=3))
    ] = TrainerOptions(),
    seed: int = 0,
    debug: Annotated[bool, Parameter(negative="", group=OUTPUT)] = False,
) -> None:
    """Train one stage; a run that was stopped resumes from its last checkpoint.

    **Examples**

        vitron fit mine/ -o runs/calls --stage 1.2 --steps 1000
        vitron fit captions/ -o runs/align --stage 1.1 --language-model lmsys/vicuna-7b-v1.5
          --vision-tower openai/clip-vit-large-patch14-336 --template vicuna --precision bf16-mixed
        vitron fit mine/ -o runs/synergy --stage 3 --model runs/calls/model

    Args:
        data: Folder with data.jsonl; see vitron data.
        output: Folder of checkpoints, logs and the model.
        stage: Stage 1.1, 1.2, 1.3, 2 or 3, or a YAML file.
        model: Shipped name, folder, or hub id of the model to train.
        validation: Folder of data to validate on.
        seed: Random seed of the order of the samples, and of new weights.
        debug: Traceback of an error instead of one sentence.
    """
    require("train", *FIT_EXTRA)
    from common_kernels.runtime.hub import quiet_libraries
    from common_kernels.runtime.lightning import quiet_lightning

    with quiet_libraries("transformers"):
        from pytorch_lightning.utilities import rank_zero_only

        from vitron.training.run import fit_stage
        from vitron.training.stages import load_stage

        quiet_lightning()
        is_first = not getattr(rank_zero_only, "rank", None)
        if not is_first:  # it starts the other processes by this same command
            logging.getLogger("vitron").setLevel(logging.ERROR)
        chosen = overrides.apply(load_stage(stage))
        built, processor = _model(model, parts, seed)
        if is_first and (output / "last.ckpt").exists():
            warn(f"resuming from {output / 'last.ckpt'}")
        folder = fit_stage(
            built, processor, chosen, data, output, validation=validation, seed=seed, options=trainer
        )
    if folder is not None:
        say(f"model: {folder}")


def _model(model: str, parts: Parts, seed: int) -> tuple[Any, Any]:
    """Return model and processor: a new model from parts, or a trained one."""
    if parts.language_model is not None and parts.vision_tower is not None:
        from vitron.model.assembly import attach_to, join_parts

        joined = join_parts(parts.language_model, parts.vision_tower, template=parts.template, seed=seed)
        return attach_to(*joined, seed=seed)
    from vitron.model.engine import Vitron

    found = Vitron.from_pretrained(model, device="cpu", dtype="float32")
    return found.model, found.processor
