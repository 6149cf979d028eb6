# SPDX-License-Identifier: Apache-2.0
"""``itaclip evaluate``: scores on a benchmark, beside the published ones."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from common_kernels.runtime.cli import Device, Output, emit, progress, say, show, warn
from common_kernels.runtime.files import write_json
from common_kernels.runtime.fingerprint import digest_settings
from common_kernels.runtime.hub import resolve_device
from common_kernels.runtime.images.limits import MAX_PIXELS
from common_kernels.runtime.processes import join_processes
from cyclopts import Group, Parameter

from itaclip.cli.options import Changes, MethodOptions, ModelOptions, Setup, apply_changes, parse_classes
from itaclip.config import ITACLIPConfig
from itaclip.text.sources import SHIPPED_KIND, aux_texts

if TYPE_CHECKING:
    from rich.table import Table

    from itaclip.evaluation.datasets import Dataset, Layout
    from itaclip.evaluation.run import Evaluation, Failure
    from itaclip.text.classes import ClassList

_PAPER_MODEL, _PAPER_WEIGHTS = "ViT-B-16-quickgelu", "openai"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationModel(ModelOptions):
    """Model; by default that of the paper.

    Attributes:
        preset: Configuration of the method, see "itaclip presets"; auto is that of the data set.
    """

    model: str = _PAPER_MODEL


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOutput(Output):
    """Where the evaluation is kept, and how it is reported.

    Attributes:
        output: Folder of the counts of each image and of the result.
    """

    output: Annotated[Path, Parameter(alias="-o")] = Path("itaclip-eval")


@Parameter(name="*", group=Group("Data set", sort_key=1))
@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOptions:
    """Data set.

    Attributes:
        root: Folder of the data set, in its usual layout.
        split: Split; by default the validation set.
        limit: Number of images, evenly spread over the split; default is all.
        max_pixels: Upper limit of width times height of an image.
        classes: File with other names of the classes, in the order of their ids.
        texts: Definitions or synonyms mixed into the names: auto for those inside this package, none, or a
            file of "name >=text" lines (or YAML, JSON).
    """

    root: Path
    split: str | None = None
    limit: int | None = None
    max_pixels: int = MAX_PIXELS
    classes: Annotated[str | None, Parameter(alias="-c")] = None
    texts: str = "auto"

    def choose_classes(self, layout: Layout) -> ClassList:
        """Return the names of the data set's classes.

        Raises:
            ValueError: If the number of classes, or whether there is a background, does not fit the data set.
        """
        found = parse_classes(self.classes or layout.name, background_first=layout.background)
        if len(found) != layout.num_classes or found.background != layout.background:
            wanted = "with the background first" if layout.background else "without a background"
            raise ValueError(
                f"--classes must name the {layout.num_classes} classes of {layout.name}, {wanted}, "
                f"got {len(found)}{' with' if found.background else ' without'} a background"
            )
        return found

    def choose_texts(self, layout: Layout, classes: ClassList) -> list[tuple[str, ...]] | None:
        """Return the auxiliary texts of the classes.

        Raises:
            ValueError: If texts are missing or unknown, or the file cannot be used.
        """
        if self.texts == "none" or (self.texts == "auto" and layout.name not in SHIPPED_KIND):
            return None
        return aux_texts(layout.name if self.texts == "auto" else self.texts, classes)


def evaluate(
    dataset: str,
    /,
    *,
    data: DatasetOptions,
    model: EvaluationModel = EvaluationModel(),
    method: MethodOptions = None,
    output: EvaluationOutput = EvaluationOutput(),
    device: Device = Device(),
    ablations: bool = False,
) -> int:
    """Measure mIoU, aAcc and mAcc on a benchmark and show what was published for it.

    By default, model and configuration are those of the paper; the names of the classes and the texts are our
    own. A run that was stopped is resumed by the same command. Under `accelerate launch` or `torchrun` the
    images are shared out among the processes, each with its own device. A class that occurs in no label map
    and no result stays out of the mean.

    **Examples**

        itaclip evaluate voc21 --root VOCdevkit/VOC2012

        itaclip evaluate coco-stuff --root coco --limit 100 --stride 112 --json > result.json

        itaclip evaluate cityscapes --root cityscapes --preset sclip --texts none

        accelerate launch --num_processes 4 -m itaclip evaluate ade20k --root ADEChallengeData2016

    Exit code: 0 all done, 1 some images failed, 2 nothing could be done.

    Args:
        dataset: voc21, context60, coco-object, coco-stuff, cityscapes, voc20, context59 or ade20k.
        ablations: Published ablations of the paper in the comparison, too.
    """
    if device.device not in ("auto", "cpu"):
        resolve_device(device.device)
    from itaclip.evaluation.datasets import find_layout, open_dataset

    layout = find_layout(dataset)
    classes = data.choose_classes(layout)
    own = model.model == _PAPER_MODEL and model.pretrained is None
    setup = Setup(
        model=ModelOptions(
            model=model.model,
            pretrained=_PAPER_WEIGHTS if own else model.pretrained,
            preset=model.preset,
            cache=model.cache,
        ),
        config=choose_config(layout, model, method),
        classes=classes,
        texts=data.choose_texts(layout, classes),
        dtype=device.dtype,
    )
    images = open_dataset(dataset, data.root, split=data.split)
    images = images if data.limit is None else images.limited(data.limit)
    found, result = _run(images, setup, data, output, device.device)
    if result is not None:
        _report(found, result, images.layout, output, ablations=ablations)
        if not layout.published and model.preset == "auto" and not output.json:
            say(f"the paper does not report {layout.name}: the preset is {layout.preset}, with your changes")
    return int(bool(found.failures))


def choose_config(layout: Layout, model: ModelOptions, changes: Changes) -> ITACLIPConfig:
    """Return the configuration of the data set, unless a preset is named or the model has its own.

    Raises:
        ValueError: If the preset is unknown or the changes do not fit it.
    """
    if model.preset != "auto" or model.model == "tiny-shapes":
        return model.config(changes)
    return apply_changes(ITACLIPConfig.preset("itaclip", dataset=layout.name), changes)


def _run(
    images: Dataset, setup: Setup, data: DatasetOptions, output: EvaluationOutput, device: str
) -> tuple[Evaluation, dict[str, object] | None]:
    """Evaluate with all processes; return the JSON values of the result in the first one."""
    from itaclip.evaluation.run import evaluate as evaluate_dataset

    processes = join_processes(device)
    start = time.perf_counter()
    segmenter = setup.load(processes.device(device))
    settings = {
        **setup.settings(),
        "dataset": [images.layout.name, images.split, str(images.root.resolve())],
    }
    folder = output.output / f"{images.layout.name}-{digest_settings(settings)[:12]}"
    with progress("images") as advance:

        def on_image(done: int, total: int, failure: Failure | None) -> None:
            if processes.is_main:
                advance(done, total)
            if failure is not None:
                warn(failure.error)

        found = evaluate_dataset(
            images,
            lambda image: next(segmenter.stream([image])).labels,
            setup.classes.labels,
            folder=folder,
            settings=settings,
            overwrite=output.overwrite,
            max_pixels=data.max_pixels,
            processes=processes,
            on_image=on_image,
            debug=output.debug,
        )
    # the first process reports while the others wait: a launcher ends all when one ends with an error
    result = None
    if processes.is_main:
        result = {
            "dataset": images.layout.name,
            "split": images.split,
            "model": setup.model.model,
            "pretrained": setup.model.pretrained,
            "dtype": str(next(segmenter.model.parameters()).dtype).removeprefix("torch."),
            "images": found.evaluated,
            "resumed": found.resumed,
            "failed": [{"image": failure.image, "error": failure.error} for failure in found.failures],
            **found.scores.to_dict(),
            "config": setup.config.to_dict(),
            "seconds": round(time.perf_counter() - start, 1),
            "folder": str(folder),
        }
        names = {"classes": setup.classes.classes, "texts": setup.texts}
        write_json(folder / "result.json", {**result, **names})
    processes.wait()
    return found, result


def _report(
    found: Evaluation,
    result: dict[str, object],
    layout: Layout,
    output: EvaluationOutput,
    *,
    ablations: bool,
) -> None:
    """Print the result beside the published ones."""
    from itaclip.evaluation.published import published

    others = published(layout.name, settings=ablations)
    if output.json:
        rows = [
            {"method": each.method, "setting": each.setting, "mIoU": each.miou, "source": each.source}
            for each in others
        ]
        emit({**result, "published": rows})
        return
    show(class_table(layout.title, found))
    show(comparison_table(layout.name, found, ablations=ablations))
    say(
        f"{found.evaluated} images ({found.resumed} from an earlier run), {len(found.failures)} failed; "
        f"kept in {result['folder']}"
    )


def class_table(title: str, found: Evaluation) -> Table:
    """Return the scores of every class, and their means."""
    from rich.table import Table

    scores = found.scores
    table = Table("class", title=title, show_footer=True)
    table.columns[0].footer = f"mean of {scores.num_counted}, all pixels"
    means = (scores.mean_iou, scores.mean_accuracy, scores.pixel_accuracy)
    names = ("IoU (%)", "accuracy (%)", "of all pixels (%)")
    footers = (f"{means[0]:.2f}", f"{means[1]:.2f}", f"{means[2]:.2f} right")
    for name, footer in zip(names, footers, strict=True):
        table.add_column(name, footer, justify="right")
    for row in scores.rows():
        table.add_row(row["label"], _shown(row["iou"]), _shown(row["accuracy"]), _shown(row["share"]))
    return table


def comparison_table(dataset: str, found: Evaluation, *, ablations: bool = False) -> Table:
    """Return the measured mIoU among the published ones, lowest first."""
    from rich.table import Table

    from itaclip.evaluation.published import published

    table = Table("", "setting", "mIoU (%)", "source", title=f"{dataset}: measured here, and published")
    here = (found.scores.mean_iou, "measured here", f"{found.evaluated} images", "this run")
    rows = [
        (each.miou, each.method, each.setting, each.source) for each in published(dataset, settings=ablations)
    ]
    for row in sorted([*rows, here], key=lambda row: row[0] if row[0] == row[0] else -1):
        style = "bold green" if row is here else None
        table.add_row(row[1], row[2], _shown(row[0]), row[3], style=style)
    return table


def _shown(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.2f}"
