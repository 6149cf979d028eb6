# SPDX-License-Identifier: Apache-2.0
"""``vitron fit``: one stage of training, by Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitron.cli.model import require
from vitron.cli.output import Debug, say, user_errors

if TYPE_CHECKING:
    from vitron.training import Stage

FIT_EXTRA = ("pytorch_lightning", "peft", "yaml")


def fit(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A folder with data.jsonl; see vitron data.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Checkpoints, logs, the model.")],
    stage: Annotated[str, typer.Option(help="1.1, 1.2, 1.3, 2, 3, or a YAML file.")] = "1.2",
    model: Annotated[
        str, typer.Option("--model", "-m", help="A model by name, or its folder.")
    ] = "vitron-tiny",
    language_model: Annotated[
        str | None, typer.Option(help="Start anew from this language model ...")
    ] = None,
    vision_tower: Annotated[str | None, typer.Option(help="... and this vision tower.")] = None,
    template: Annotated[str, typer.Option(help="Chat template of a new model.")] = "chatml",
    validation: Annotated[Path | None, typer.Option(help="Data to validate on.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the stage's.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Instead of the stage's.")] = None,
    lr: Annotated[float | None, typer.Option(min=1e-9, help="Instead of the stage's.")] = None,
    accelerator: Annotated[str, typer.Option(help="As Lightning names it: auto, cpu, gpu.")] = "auto",
    devices: Annotated[str, typer.Option(help="A number, or auto.")] = "auto",
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    strategy: Annotated[str, typer.Option(help="As Lightning names it: auto, ddp, fsdp.")] = "auto",
    precision: Annotated[str, typer.Option(help="As Lightning names it: 32-true, bf16-mixed.")] = "32-true",
    workers: Annotated[int, typer.Option(min=0, help="Processes that read ahead.")] = 0,
    every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of the order, and of new weights.")] = 0,
    debug: Debug = False,
) -> None:
    """Train one stage; a run that was cut goes on from its last checkpoint.

    [bold]Examples[/bold]

      vitron fit mine/ -o runs/calls --stage 1.2 --steps 1000

      vitron fit captions/ -o runs/align --stage 1.1 --language-model lmsys/vicuna-7b-v1.5
        --vision-tower openai/clip-vit-large-patch14-336 --template vicuna --precision bf16-mixed

      vitron fit mine/ -o runs/synergy --stage 3 --model runs/calls/model
    """
    with user_errors(debug):
        require("train", *FIT_EXTRA)
        from vitron.training import load_stage
        from vitron.training.run import fit_stage

        chosen = _changed(load_stage(stage), steps=steps, batch_size=batch_size, lr=lr)
        built = _model(model, language_model, vision_tower, template, seed)
        folder = fit_stage(
            built,
            chosen,
            data,
            out,
            validation=validation,
            seed=seed,
            workers=workers,
            every=every,
            accelerator=accelerator,
            devices=int(devices) if devices.isdecimal() else devices,
            num_nodes=nodes,
            strategy=strategy,
            precision=precision,
        )
        if folder is not None:
            say(f"model: {folder}")


def _changed(stage: Stage, **changes: Any) -> Stage:
    kept = {name: value for name, value in changes.items() if value is not None}
    return stage.model_copy(update={"optimisation": stage.optimisation.model_copy(update=kept)})


def _model(model: str, language_model: str | None, vision_tower: str | None, template: str, seed: int) -> Any:
    if (language_model is None) != (vision_tower is None):
        raise ValueError("a new model needs both --language-model and --vision-tower")
    if language_model is not None and vision_tower is not None:
        from vitron.model.assembly import assemble

        return assemble(language_model, vision_tower, template=template, seed=seed)
    from vitron.model.engine import Vitron

    found = Vitron.from_pretrained(model, device="cpu", dtype="float32")
    return found.model, found.processor
