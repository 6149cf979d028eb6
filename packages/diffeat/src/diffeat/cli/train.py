# SPDX-License-Identifier: Apache-2.0
"""``diffeat train``: a head over frozen features, for matching or for segmentation."""

from __future__ import annotations

from collections.abc import Sequence
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

    from diffeat.pck import Pair

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
    """The options of a training; its random seed is that of the extraction.

    Attributes:
        devices: Number of devices; each computes the features of its own batches.
    """

    seed: Annotated[int, Parameter(parse=False)] = 0
    devices: int = 1

    def __post_init__(self) -> None:
        TrainingOptions.__post_init__(self)  # the zero-argument super() fails in a dataclass with slots
        if self.devices < 1:
            raise ValueError(f"--devices must be at least 1, got {self.devices}")

    def plain(self, seed: int) -> TrainingOptions:
        """Return the options of the Python API with a random seed."""
        values = {each.name: getattr(self, each.name) for each in fields(TrainingOptions)}
        return TrainingOptions(**{**values, "seed": seed})


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

    def pairs(self, data: Path) -> Sequence[Pair]:
        """Return the pairs with points in a folder."""
        from diffeat.pck import read_pair_list, read_spair, spread

        found = read_pair_list(self.list, data) if self.list else read_spair(data, self.split)
        return spread(found, self.limit)


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
    from common_kernels.runtime.lightning import quiet_lightning
    from common_kernels.runtime.processes import Processes
    from pytorch_lightning.utilities import rank_zero_only

    from diffeat.heads import HEAD_FILE
    from diffeat.ranking.labels import MaskLabels
    from diffeat.training import HeadTraining

    quiet_lightning()
    # Lightning starts the other processes by this same command
    rank, count = int(getattr(rank_zero_only, "rank", None) or 0), learning.devices
    device = Processes(rank=rank, world_size=count, local_rank=rank).device(machine.device)
    masks = source.masks
    labels = None if masks is None else MaskLabels.read(data, masks, classes=source.classes)
    pairs = source.pairs(data) if labels is None else []
    with progress("steps") as bar:
        training = HeadTraining(
            extractor=load_extractor(model, machine, device=device),
            names=names,
            extraction=options.plain(),
            options=learning.plain(options.seed),
            folder=output.output,
            callbacks=[_bar(bar, learning.steps)],
            trainer={"devices": count, "strategy": "ddp"} if count > 1 else {},
        )
        head, losses = training.on_pairs(pairs) if labels is None else training.on_masks(labels)
    if rank:
        return
    seen = plural(len(pairs), "pair") if labels is None else plural(len(labels.images), "image")
    tail = losses[-max(1, len(losses) // 10) :]
    loss = sum(tail) / len(tail)
    file = output.output / HEAD_FILE
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
