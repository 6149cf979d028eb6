# SPDX-License-Identifier: Apache-2.0
"""``diffeat train``: a head over frozen features, for matching or for segmentation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from common_kernels.runtime.cli import Device, Report, emit, progress
from cyclopts import Group, Parameter

from diffeat.cli.frame import Extraction, Selection, load_extractor, note, plural
from diffeat.options import TrainingOptions

if TYPE_CHECKING:
    from common_kernels.runtime.cli import OnProgress
    from pytorch_lightning import Callback

_LEARNING = Group("Learning", sort_key=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOutput(Report):
    """Folder of the head.

    Attributes:
        output: Folder of the head and of the checkpoint from which a stopped run goes on.
    """

    output: Annotated[Path, Parameter(alias="-o")] = Path("diffeat-head")


@Parameter(name="*", group=_LEARNING)
@dataclass(frozen=True, slots=True, kw_only=True)
class Training(TrainingOptions):
    """The options of a training; its random seed is that of the extraction."""

    seed: Annotated[int, Parameter(parse=False)] = 0


@Parameter(name="*", group=_LEARNING)
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainData:
    """What is learned from.

    Attributes:
        masks: Folder of masks, a class number per pixel; 255 is ignored. Without it, points are learned.
        classes: Class name, in the order of the numbers in the masks; may be repeated.
        split: Split of SPair-71k.
        list: JSON list of pairs instead of a split, with paths relative to the images.
        limit: Number of pairs, evenly spread over all.
    """

    masks: Path | None = None
    classes: tuple[str, ...] = ()
    split: Literal["trn", "val"] = "trn"
    list: Path | None = None
    limit: int | None = None


def train(
    data: Path,
    /,
    *,
    output: TrainOutput = TrainOutput(),
    selection: Selection = Selection(),
    learning: Training = Training(),
    source: TrainData = TrainData(),
    options: Extraction = Extraction(),
    machine: Device = Device(),
    model: str = "tiny-sdxl",
) -> None:
    """Train a head over the features of a frozen model.

    From pairs with points (SPair-71k) it is an aggregation: a bottleneck for each activation, and learned
    weights of all activations and timesteps. From images with masks (--masks) it is UPerNet. The head is
    written to head.safetensors in the output folder, for "diffeat match --head" and "diffeat segment --head".
    A run that was stopped goes on from its last checkpoint. Needs the extra "train".

    **Examples**

        diffeat train SPair-71k --model path/to/sd15 -n "up-*-res-out" -t 50 -t 261 --size 512 -o hyper/
        diffeat match cat.jpg dog.jpg --model path/to/sd15 --head hyper/head.safetensors
        diffeat train images/ --masks masks/ --model path/to/sdxl -p Ours-XL --steps 80000 -o scenes/
        diffeat segment photos/ --model path/to/sdxl --head scenes/head.safetensors

    Args:
        data: Folder of SPair-71k, or of the images of --list or --masks.
        model: Shipped name, folder or hub id of a pipeline.
    """
    names = selection.chosen()
    from diffeat.training import HEAD_FILE, train_correspondence, train_segmentation

    training = TrainingOptions(
        **{
            each.name: getattr(learning, each.name) for each in fields(TrainingOptions) if each.name != "seed"
        },
        seed=options.seed,
    )
    folder = output.output
    with progress("steps") as bar:
        calls = [_bar(bar, training.steps)]
        if source.masks is not None:
            from diffeat.ranking.labels import MaskLabels

            labels = MaskLabels.read(data, source.masks, classes=source.classes)
            extractor = load_extractor(model, machine)
            head, losses = train_segmentation(
                extractor, labels, names, options.plain(), training, folder, callbacks=calls
            )
            seen = plural(len(labels.images), "image")
        else:
            from diffeat.pck import read_pair_list, read_spair

            pairs = read_pair_list(source.list, data) if source.list else read_spair(data, source.split)
            if source.limit is not None and source.limit < len(pairs):
                pairs = [pairs[i * len(pairs) // source.limit] for i in range(source.limit)]
            extractor = load_extractor(model, machine)
            head, losses = train_correspondence(
                extractor, pairs, names, options.plain(), training, folder, callbacks=calls
            )
            seen = plural(len(pairs), "pair")
    tail = losses[-max(1, len(losses) // 10) :]
    loss = sum(tail) / len(tail)
    file = folder / HEAD_FILE
    if output.json:
        weights = getattr(head, "weights", None)
        report = {"head": str(file), "steps": len(losses), "loss": round(loss, 4)}
        emit(report if weights is None else {**report, "weights": weights})
    note(f"{plural(len(losses), 'step')} on {seen}, loss {loss:.4f} in the last tenth; {file}")


def _bar(on_progress: OnProgress, steps: int) -> Callback:
    from pytorch_lightning import Callback, LightningModule, Trainer

    class Bar(Callback):
        """Reports steps."""

        def on_train_batch_end(
            self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
        ) -> None:
            on_progress(trainer.global_step, steps)

    return Bar()
