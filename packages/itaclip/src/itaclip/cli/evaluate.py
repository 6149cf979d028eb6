# SPDX-License-Identifier: Apache-2.0
"""``itaclip evaluate``: scores on a benchmark, beside the published ones, or on one's own images."""

from __future__ import annotations

import csv
import hashlib
import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from common_kernels.runtime.cli import Device, Output, emit, progress, say, show, warn
from common_kernels.runtime.files import write_json, write_text
from common_kernels.runtime.fingerprint import digest_settings
from common_kernels.runtime.hub import resolve_device
from common_kernels.runtime.images.limits import MAX_PIXELS
from common_kernels.runtime.processes import join_processes
from cyclopts import Group, Parameter

from itaclip.cli.options import (
    TINY_SHAPES,
    MethodOptions,
    ModelOptions,
    Setup,
    checked_config,
    comma_list,
    parse_classes,
    read_templates,
)
from itaclip.presets import Settings
from itaclip.text.classes import ClassList
from itaclip.text.sources import SHIPPED_KIND, aux_texts

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.table import Table
    from torch import Tensor

    from itaclip.evaluation.datasets import Dataset, Layout
    from itaclip.evaluation.run import Evaluation, Failure, Outcome, Predict
    from itaclip.model import ITACLIP

Saved = Literal["predictions", "overlays"]

_PAPER_MODEL, _PAPER_WEIGHTS = "ViT-B-16-quickgelu", "openai"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationModel(ModelOptions):
    """Model; on a benchmark, by default that of the paper.

    Attributes:
        model: Shipped name, folder, hub id, or open_clip's name of an architecture with --pretrained; on a
            benchmark, auto is the model of the paper.
        method: Method, see "itaclip presets"; auto is itaclip, or that of the shipped model.
    """

    model: str = "auto"

    def chosen(self, *, benchmark: bool) -> ModelOptions:
        """Return the model in place of auto.

        Args:
            benchmark: Whether it is run on a benchmark.

        Raises:
            ValueError: If there is no model to choose.
        """
        name, pretrained = self.model, self.pretrained
        if name == "auto":
            name = _PAPER_MODEL if benchmark else TINY_SHAPES
            pretrained = (pretrained or _PAPER_WEIGHTS) if benchmark else pretrained
        return ModelOptions(
            model=name,
            pretrained=pretrained,
            method=self.method,
            quick_gelu=self.quick_gelu,
            cache=self.cache,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOutput(Output):
    """Where the evaluation is kept, and how it is reported.

    Attributes:
        output: Folder of the counts of each image, of the result and of all that is drawn.
        save: Files written for every image: predictions (label maps), overlays, or both.
        worst: Number of images with the lowest mIoU that are drawn beside truth and prediction.
    """

    output: Annotated[Path, Parameter(alias="-o")] = Path("itaclip-eval")
    save: Annotated[tuple[Saved, ...], Parameter(converter=comma_list, show_default=False)] = ()
    worst: int = 0

    def __post_init__(self) -> None:
        if self.worst < 0:
            raise ValueError(f"--worst must be at least 0, got {self.worst}")

    def files(self, folder: Path, name: str) -> dict[Saved, Path]:
        """Return the files of an image, by kind."""
        return {kind: folder / kind / f"{name}.png" for kind in self.save}


@Parameter(name="*", group=Group("Data set", sort_key=1))
@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOptions:
    """Data set: a benchmark in its folder, or your own images and label maps.

    Attributes:
        root: Folder of a benchmark, in its usual layout.
        split: Split of a benchmark; by default the validation set.
        images: Folder of your own images; folders below it count.
        labels: Folder of their label maps, NAME.png for NAME.jpg: numbers of the classes from 0, 255 ignored.
        ignore_zero: Ignore the number 0 in your label maps; the classes then begin at 1.
        limit: Number of images, evenly spread over the split; default is all.
        max_pixels: Upper limit of width times height of an image.
        classes: Names of the classes in the order of their numbers: "road, car, sky", or a file with a class
            per line (or YAML, JSON); by default those of the benchmark.
        background_first: First class as the background.
        texts: Definitions or synonyms mixed into the names: auto for those inside this package where the
            method has some, none, or a file of "name >=text" lines (or YAML, JSON).
        template: Prompt template of your own with {} for the name, or a file with one in a line; may be given
            several times.
    """

    root: Path | None = None
    split: str | None = None
    images: Path | None = None
    labels: Path | None = None
    ignore_zero: Annotated[bool, Parameter(negative="")] = False
    limit: int | None = None
    max_pixels: int = MAX_PIXELS
    classes: Annotated[str | None, Parameter(alias="-c")] = None
    background_first: Annotated[bool, Parameter(negative="")] = False
    texts: str = "auto"
    template: Annotated[list[str], Parameter(show_default=False)] = field(default_factory=list[str])

    def open(self, benchmark: str | None, classes: ClassList) -> Dataset:
        """Find the images and label maps.

        Args:
            benchmark: Name of a benchmark; ``None`` for images of one's own.
            classes: The classes.

        Raises:
            ValueError: If options are missing or do not go together, or files are not there.
        """
        from itaclip.evaluation.datasets import open_dataset
        from itaclip.evaluation.folders import open_folder

        if benchmark is not None:
            if self.root is None or self.images is not None or self.labels is not None or self.ignore_zero:
                raise ValueError(
                    f"{benchmark} needs --root, its folder, and no --images, --labels or --ignore-zero"
                )
            found = open_dataset(benchmark, self.root, split=self.split)
        elif self.images is None or self.labels is None or self.root is not None or self.split is not None:
            raise ValueError(
                "name a benchmark and its --root, or give --images, --labels and --classes of your own"
            )
        else:
            found = open_folder(
                self.images,
                self.labels,
                len(classes),
                background=classes.background,
                ignore_zero=self.ignore_zero,
            )
        return found if self.limit is None else found.limited(self.limit)

    def choose_classes(self, settings: Settings) -> ClassList:
        """Return the names of the data set's classes.

        Args:
            settings: Method and data set.

        Raises:
            ValueError: If there are no names, or the number of classes, or whether there is a background,
                does not fit the benchmark.
        """
        if settings.dataset is None:
            if self.images is None and self.labels is None:
                raise ValueError(
                    "name a benchmark, or give --images, --labels and --classes of your own: "
                    "itaclip evaluate --help shows both"
                )
            if self.classes is None:
                raise ValueError(
                    "images of your own need --classes: names in the order of the numbers in the label maps"
                )
            return parse_classes(self.classes, background_first=self.background_first)
        if self.classes is None:
            return settings.class_list()
        own = ClassList.shipped(settings.dataset)
        found = parse_classes(self.classes, background_first=own.background)
        if len(found) != len(own) or found.background != own.background:
            wanted = "with the background first" if own.background else "without a background"
            raise ValueError(
                f"--classes must name the {len(own)} classes of {settings.dataset}, {wanted}, "
                f"got {len(found)}{' with' if found.background else ' without'} a background"
            )
        return found

    def choose_texts(self, settings: Settings, classes: ClassList) -> list[tuple[str, ...]] | None:
        """Return the auxiliary texts of the classes.

        Args:
            settings: Method and data set.
            classes: The classes.

        Raises:
            ValueError: If texts are missing or unknown, or the file cannot be used.
        """
        if self.texts == "none":
            return None
        if self.texts != "auto":
            return aux_texts(self.texts, classes)
        if not settings.texts or settings.dataset not in SHIPPED_KIND:
            return None
        return aux_texts(settings.dataset, classes)


def evaluate(
    benchmark: str | None = None,
    /,
    *,
    data: DatasetOptions = DatasetOptions(),
    model: EvaluationModel = EvaluationModel(),
    method: MethodOptions = None,
    output: EvaluationOutput = EvaluationOutput(),
    device: Device = Device(),
    ablations: bool = False,
) -> int:
    """Measure mIoU, aAcc and mAcc on a benchmark or on your own images, and show what was published.

    On a benchmark, a method runs with the settings that its authors publish for it. A run that was stopped is
    resumed by the same command. Under `accelerate launch` or `torchrun` the images are shared out among the
    processes, each with its own device. A class that occurs in no label map and no result stays out of the
    mean. The folder of results gets images.csv, the scores of every image, worst first.

    **Examples**

        itaclip evaluate voc21 --root VOCdevkit/VOC2012
        itaclip evaluate cityscapes --root cityscapes --method sclip --limit 100 --json > result.json
        itaclip evaluate --images photos --labels masks -c "road, car, sky" --model ./my-clip --worst 8
        itaclip evaluate --images photos --labels masks -c classes.txt --model ./my-clip --save overlays
        accelerate launch --num_processes 4 -m itaclip evaluate ade20k --root ADEChallengeData2016

    Exit code: 0 all done, 1 some images failed, 2 nothing could be done.

    Args:
        benchmark: voc21, context60, coco-object, coco-stuff, cityscapes, voc20, context59 or ade20k; none for
            your own images.
        ablations: Published ablations of the paper in the comparison, too.
    """
    if device.device not in ("auto", "cpu"):
        resolve_device(device.device)
    chosen = model.chosen(benchmark=benchmark is not None)
    settings = chosen.resolve(benchmark)
    classes = data.choose_classes(settings)
    setup = Setup(
        model=chosen,
        config=checked_config(settings, method),
        classes=classes,
        texts=data.choose_texts(settings, classes),
        templates=read_templates(data.template),
        dtype=device.dtype,
    )
    images = data.open(benchmark, classes)
    is_published = settings.published and not method
    origin = {"method": settings.method, "published": is_published, "source": settings.source}
    found, result = _run(images, setup, data, output, device.device, origin)
    if result is not None:
        _report(found, result, images.layout, output, ablations=ablations)
        if benchmark is not None and not settings.published and not output.json:
            say(settings.source)
    return int(bool(found.failures))


def _run(
    images: Dataset,
    setup: Setup,
    data: DatasetOptions,
    output: EvaluationOutput,
    device: str,
    origin: Mapping[str, object],
) -> tuple[Evaluation, dict[str, object] | None]:
    """Evaluate with all processes; return the JSON values of the result in the first one."""
    from itaclip.evaluation.run import evaluate as evaluate_dataset

    processes = join_processes(device)
    start = time.perf_counter()
    segmenter = setup.load(processes.device(device))
    settings = {**setup.settings(), "dataset": _identity(images)}
    folder = output.output / f"{images.layout.name}-{digest_settings(settings)[:12]}"

    def predict(batch: Sequence[Image]) -> Iterator[Tensor]:
        return (found.labels for found in segmenter.stream(batch))

    with progress("images") as advance:

        def on_image(done: int, total: int, failure: Failure | None) -> None:
            if processes.is_main:
                advance(done, total)
            if failure is not None:
                warn(failure.error)

        found = evaluate_dataset(
            images,
            predict,
            setup.classes.labels,
            batch_size=segmenter.windows.windows_at_once,
            folder=folder,
            settings=settings,
            overwrite=output.overwrite,
            max_pixels=data.max_pixels,
            processes=processes,
            on_image=on_image,
            on_outcome=lambda outcome: _save(outcome, output.files(folder, outcome.sample.name), setup),
            is_complete=lambda sample: all(map(Path.is_file, output.files(folder, sample.name).values())),
            debug=output.debug,
        )
    # the first process reports while the others wait: a launcher ends all when one ends with an error
    result = None
    if processes.is_main:
        result = {
            **_facts(found, images, setup, segmenter),
            "worst": [str(path) for path in _draw_worst(found, images, predict, setup, folder, output, data)],
            "config": setup.config.to_dict(),
            "settings": origin,
            "seconds": round(time.perf_counter() - start, 1),
            "folder": str(folder),
        }
        names = {"classes": setup.classes.classes, "texts": setup.texts, "templates": setup.templates}
        write_json(folder / "result.json", {**result, **names})
        _write_table(found, folder / "images.csv")
    processes.wait()
    return found, result


def _facts(found: Evaluation, images: Dataset, setup: Setup, segmenter: ITACLIP) -> dict[str, object]:
    """Return what was evaluated, and the scores."""
    return {
        "dataset": images.layout.name,
        "split": images.split,
        "model": setup.model.model,
        "pretrained": setup.model.pretrained,
        "dtype": str(next(segmenter.model.parameters()).dtype).removeprefix("torch."),
        "images": found.evaluated,
        "resumed": found.resumed,
        "failed": [{"image": failure.image, "error": failure.error} for failure in found.failures],
        **found.scores.to_dict(),
    }


def _identity(images: Dataset) -> list[str]:
    """Return what tells data sets apart."""
    labels = {str(sample.label.parent.resolve()) for sample in images.samples}
    places = [str(images.root.resolve()), *sorted(labels)] if images.layout.name == "own" else []
    table = hashlib.sha256(images.samples[0].table.tobytes()).hexdigest()[:12]
    return [images.layout.name, images.split, str(images.root.resolve()), *places, table]


def _save(outcome: Outcome, files: Mapping[Saved, Path], setup: Setup) -> None:
    """Write label map and overlay of an image."""
    from itaclip.evaluation.drawing import as_segmentation
    from itaclip.pictures import Overlay

    if not files:
        return
    classes = setup.classes
    found = as_segmentation(outcome.predicted, classes.labels, background=classes.background)
    overlay = Overlay(outcome.image, found)
    for kind, path in files.items():
        overlay.save(path) if kind == "overlays" else overlay.save_labels(path)


def _draw_worst(
    found: Evaluation,
    images: Dataset,
    predict: Predict,
    setup: Setup,
    folder: Path,
    output: EvaluationOutput,
    data: DatasetOptions,
) -> list[Path]:
    """Draw the worst images, predicted once more: those of an earlier run are not in memory."""
    from common_kernels.runtime.images import write_image

    from itaclip.evaluation.drawing import draw_sample

    samples = {sample.name: sample for sample in images.samples}
    written: list[Path] = []
    for number, score in enumerate(found.images[: output.worst], 1):
        if score.miou != score.miou:
            break
        image, truth = samples[score.image].read(max_pixels=data.max_pixels)
        (predicted,) = predict([image])
        drawn = draw_sample(
            image, truth, predicted, setup.classes.labels, background=setup.classes.background
        )
        written.append(folder / "worst" / f"{number:03d}-{Path(score.image).name}.png")
        write_image(drawn, written[-1])
    return written


def _write_table(found: Evaluation, path: Path) -> None:
    """Write the scores of every image, worst first."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("image", "mIoU", "aAcc"))
    rows.writerows((each.image, f"{each.miou:.2f}", f"{each.pixel_accuracy:.2f}") for each in found.images)
    write_text(path, table.getvalue())


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
    if found.evaluated:
        show(class_table(layout.title, found))
    if found.evaluated and others:
        show(comparison_table(layout.name, found, ablations=ablations))
    worst = result["worst"]
    if isinstance(worst, list) and worst:
        say(f"the worst images are drawn in {Path(worst[0]).parent}")
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
