# SPDX-License-Identifier: Apache-2.0
"""``itaclip evaluate``: a benchmark in, its scores beside the published ones out."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from itaclip.cli.options import (
    BatchSize,
    Cache,
    Debug,
    Device,
    DTypeOption,
    Json,
    Model,
    ModelOptions,
    Overwrite,
    Preset,
    Pretrained,
    Settings,
    change_settings,
    find_texts,
    parse_classes,
)
from itaclip.cli.output import stdout, steps, user_errors, warn
from itaclip.config import ITACLIPConfig
from itaclip.images import MAX_PIXELS

if TYPE_CHECKING:
    from itaclip.evaluation.datasets import Dataset, Layout
    from itaclip.evaluation.run import Evaluation, Failure
    from itaclip.model import ITACLIP
    from itaclip.text.classes import ClassList
    from itaclip.text.sources import TextSource

PAPER_MODEL, PAPER_WEIGHTS = "ViT-B-16-quickgelu", "openai"


def evaluate(
    dataset: Annotated[
        str,
        typer.Argument(
            help="voc21, context60, coco-object, coco-stuff, cityscapes, voc20, context59 or ade20k.",
            metavar="DATASET",
        ),
    ],
    root: Annotated[Path, typer.Option(help="Folder of the data set, in its usual layout.")],
    split: Annotated[str | None, typer.Option(help="Another part than the validation set.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="So many images only, evenly spread over the set.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes", "-c", help="A file with other names of the classes, in the order of their ids."
        ),
    ] = None,
    texts: Annotated[
        str,
        typer.Option(
            help='Definitions or synonyms mixed into the names: "auto" takes those inside this package, '
            '"none" leaves them out; or a file of "name >=text" lines (or YAML, JSON).'
        ),
    ] = "auto",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the counts per image and the result.")
    ] = Path("itaclip-eval"),
    overwrite: Overwrite = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Leave larger images out.")] = MAX_PIXELS,
    ablations: Annotated[bool, typer.Option(help="Also list the paper's ablations.")] = False,
    model: Model = PAPER_MODEL,
    pretrained: Pretrained = None,
    preset: Preset = "auto",
    settings: Settings = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
    dtype: DTypeOption = "auto",
    cache: Cache = True,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Measure mIoU, aAcc and mAcc on a benchmark and show what was published for it.

    Without options, model and settings are those of the paper; the names of the classes and the texts are our
    own. A run that was stopped goes on where it was, as long as model and settings are the same. Under
    [bold]accelerate launch[/bold] (on CPUs [bold]torchrun[/bold]) the images are shared out among the
    processes and the counts added up. A class that no label map holds and no answer names stays out of the
    mean.

    [bold]Examples[/bold]

      itaclip evaluate voc21 --root VOCdevkit/VOC2012

      itaclip evaluate coco-stuff --root coco --limit 100 --set stride=112 --json > result.json

      itaclip evaluate cityscapes --root cityscapes --preset sclip --texts none

      accelerate launch --num_processes 4 -m itaclip evaluate ade20k --root ADEChallengeData2016

    Exit code: 0 all done, 1 some images failed, 2 nothing could be done.
    """
    with user_errors(debug):
        from itaclip.evaluation.datasets import find_layout, open_dataset

        layout = find_layout(dataset)
        own = (model, pretrained) == (PAPER_MODEL, None)
        options = ModelOptions(
            model=model,
            pretrained=PAPER_WEIGHTS if own else pretrained,
            preset=preset,
            settings=settings or (),
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            cache=cache,
        )
        config = choose_config(layout, options)
        names = choose_classes(layout, classes)
        source = choose_texts(layout, texts)
        images = open_dataset(dataset, root, split=split)
        images = images if limit is None else images.limited(limit)
        job = Job(images, options, config, names, source, out, overwrite, max_pixels, json_output, ablations)
        failed = job.run(debug=debug)
    raise typer.Exit(1 if failed else 0)


def choose_config(layout: Layout, options: ModelOptions) -> ITACLIPConfig:
    """Return the settings: those for the data set, unless a preset is named or the model has its own.

    Raises:
        ValueError: If a preset or setting is unknown or wrong.
    """
    if options.preset != "auto" or options.model == "tiny-shapes":
        return options.config()
    config = change_settings(ITACLIPConfig.preset(layout.preset, **layout.changes), options.settings)
    return config if options.batch_size is None else replace(config, batch_size=options.batch_size)


def choose_classes(layout: Layout, text: str | None) -> ClassList:
    """Return the names of the data set's classes.

    Raises:
        ValueError: If the number of classes, or whether there is a background, does not fit the data set.
    """
    found = parse_classes(layout.name if text is None else text, background_first=layout.background)
    if len(found) != layout.num_classes or found.background != layout.background:
        with_or_without = "with the background first" if layout.background else "without a background"
        raise ValueError(
            f"--classes must name the {layout.num_classes} classes of {layout.name}, {with_or_without}, "
            f"got {len(found)}{' with' if found.background else ' without'} a background"
        )
    return found


def choose_texts(layout: Layout, text: str) -> TextSource | None:
    """Return the auxiliary texts; none where this package has none for the data set.

    Raises:
        ValueError: If there are none of this name, or the file cannot be used.
    """
    from itaclip.text.sources import SHIPPED_KIND

    if text == "none" or (text == "auto" and layout.name not in SHIPPED_KIND):
        return None
    return find_texts(text, layout.name)


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation.

    Attributes:
        dataset: Images and label maps.
        options: Which model, where.
        config: Its settings.
        classes: What the class ids are called.
        source: Auxiliary texts.
        out: Folder of all results.
        fresh: Whether counts of an earlier run are dropped.
        max_pixels: Larger images are left out.
        json_output: Whether a JSON object goes to stdout instead of tables.
        ablations: Whether the paper's ablations stand in the list.
    """

    dataset: Dataset
    options: ModelOptions
    config: ITACLIPConfig
    classes: ClassList
    source: TextSource | None
    out: Path
    fresh: bool
    max_pixels: int
    json_output: bool
    ablations: bool

    def run(self, *, debug: bool) -> bool:
        """Evaluate with all processes; the first shows and writes the result.

        Returns:
            Whether the exit code of this process must tell of failures.
        """
        from itaclip.evaluation.run import evaluate, start_processes

        state = start_processes(cpu=self.options.device == "cpu")
        device = self.options.device
        if state.num_processes > 1:
            if device not in ("auto", "cpu"):
                raise ValueError(f"--device must be auto or cpu for several processes, got {device}")
            device = str(state.device)
        start = time.perf_counter()
        segmenter = replace(self.options, device=device).load(self.config)
        segmenter.set_classes(self.classes, aux=self.source)
        described = self.describe(segmenter)
        folder = self.out / f"{self.dataset.layout.name}-{_digest(described)}"
        with steps("images") as advance:

            def on_image(done: int, total: int, failure: Failure | None) -> None:
                if state.is_main_process:
                    advance(done, total)
                if failure is not None:
                    warn(failure.error, style="red")

            found = evaluate(
                self.dataset,
                lambda picture: next(segmenter.stream([picture])).labels,
                self.classes.labels,
                folder=folder,
                fresh=self.fresh,
                max_pixels=self.max_pixels,
                on_image=on_image,
                debug=debug,
            )
        if state.is_main_process:
            self.report(found, described, folder, time.perf_counter() - start)
        # a launcher ends all processes when one ends badly, so the first reports, then all leave together
        state.wait_for_everyone()
        main = state.is_main_process
        state.destroy_process_group()
        return main and bool(found.failures)

    def describe(self, segmenter: ITACLIP) -> dict[str, object]:
        """Return what the counts depend on; counts of another description are never mixed in."""
        from itaclip import __version__
        from itaclip.text.sources import aux_texts
        from itaclip.text.store import weights_fingerprint

        model = segmenter.model
        weights = [weights_fingerprint(part) for part in (model, model.get_submodule("visual"))]
        return {
            "dataset": self.dataset.layout.name,
            "split": self.dataset.split,
            "root": str(self.dataset.root.resolve()),
            "model": self.options.model,
            "pretrained": self.options.pretrained,
            "weights": weights,
            "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
            "config": self.config.to_dict(),
            "classes": self.classes.classes,
            "texts": aux_texts(self.source, self.classes),
            "version": __version__,
        }

    def report(self, found: Evaluation, described: dict[str, object], folder: Path, seconds: float) -> None:
        """Show the result and keep it as ``result.json``."""
        from itaclip.evaluation.published import published
        from itaclip.text.files import write_bytes

        others = published(self.dataset.layout.name, settings=self.ablations)
        result = {
            **{key: described[key] for key in ("dataset", "split", "model", "pretrained", "dtype")},
            "images": found.evaluated,
            "resumed": found.resumed,
            "failed": [{"image": failure.image, "error": failure.error} for failure in found.failures],
            **found.scores.to_dict(),
            "published": [
                {"method": each.method, "setting": each.setting, "mIoU": each.miou, "source": each.source}
                for each in others
            ],
            "config": described["config"],
            "seconds": round(seconds, 1),
            "folder": str(folder),
        }
        kept = {**result, "classes": described["classes"], "texts": described["texts"]}
        write_bytes(folder / "result.json", json.dumps(kept, indent=2, ensure_ascii=False).encode())
        if self.json_output:
            typer.echo(json.dumps(result, ensure_ascii=False))
            return
        stdout.print(class_table(self.dataset.layout.title, found))
        stdout.print(comparison_table(self.dataset.layout.name, found, ablations=self.ablations))
        counts = (
            f"{found.evaluated} images ({found.resumed} from an earlier run), {len(found.failures)} left out"
        )
        stdout.print(f"{counts}; kept in {folder}", soft_wrap=True, markup=False, highlight=False)
        layout = self.dataset.layout
        if not layout.published and self.options.preset == "auto":
            note = (
                f"the paper does not treat {layout.name}: the settings are those of {layout.preset}, or yours"
            )
            stdout.print(note, soft_wrap=True, markup=False, highlight=False)


def _digest(described: dict[str, object]) -> str:
    config = described["config"]
    same = (
        {key: value for key, value in config.items() if key != "batch_size"}
        if isinstance(config, dict)
        else {}
    )
    text = json.dumps({**described, "config": same}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def class_table(title: str, found: Evaluation) -> Table:
    """Return the scores of every class, and their means."""
    scores = found.scores
    table = Table("class", title=title, show_footer=True)
    table.columns[0].footer = f"mean of {scores.num_counted}, all pixels"
    means = (scores.mean_iou, scores.mean_accuracy, scores.pixel_accuracy)
    names = ("IoU (%)", "found (%)", "of all pixels (%)")
    for name, footer in zip(
        names, (f"{means[0]:.2f}", f"{means[1]:.2f}", f"{means[2]:.2f} right"), strict=True
    ):
        table.add_column(name, footer, justify="right")
    for row in scores.rows():
        table.add_row(row["label"], _shown(row["iou"]), _shown(row["accuracy"]), _shown(row["share"]))
    return table


def comparison_table(dataset: str, found: Evaluation, *, ablations: bool = False) -> Table:
    """Return the measured mIoU among the published ones, lowest first."""
    from itaclip.evaluation.published import published

    table = Table(
        "", "setting", "mIoU (%)", "source", title=f"{dataset}: measured here, and as published by others"
    )
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
