# SPDX-License-Identifier: Apache-2.0
"""``diffeat segment``: learn classes from a few masks, find them in other images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from diffeat.cli.options import (
    BatchSize,
    Debug,
    Device,
    DtypeOption,
    Inputs,
    Json,
    Model,
    Names,
    NumNoises,
    PresetOption,
    Prompt,
    Recursive,
    Seed,
    Size,
    Timestep,
    chosen_names,
    find_images,
    load_extractor,
    make_inputs,
    read_features,
    spatial,
)
from diffeat.cli.output import count, one_line, progress, report_broken, say, user_errors

if TYPE_CHECKING:
    from torch import Tensor

    from diffeat.extractor import FeatureExtractor
    from diffeat.ranking import MaskLabels
    from diffeat.segment import PixelSegmenter

# longest side on which classes are worked out; a label map is enlarged to its image from there
_LONGEST = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What is done with an image."""

    names: Sequence[str]
    inputs: Inputs
    classes: Sequence[str]
    out: Path
    overwrite: bool


def segment(
    model: Model,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files and folders to segment; if left out, the labelled images judge each other.",
            metavar="IMAGES",
        ),
    ] = None,
    learn: Annotated[
        Path | None, typer.Option("--images", help="Folder of labelled pictures.", show_default=False)
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks",
            help="Folder of their masks, a class number per pixel; 255 is ignored.",
            show_default=False,
        ),
    ] = None,
    names: Names = None,
    preset: PresetOption = None,
    classes: Annotated[str | None, typer.Option(help="Names of the classes, between commas.")] = None,
    probe: Annotated[
        Literal["logistic", "mlp"], typer.Option(help="A linear probe, or the paper's ten MLPs (slow).")
    ] = "logistic",
    side: Annotated[int, typer.Option(min=2, help="Pixels of the square that is learned on.")] = 256,
    pixels: Annotated[int, typer.Option(min=2, help="Pixels drawn from each image to learn from.")] = 1000,
    train: Annotated[
        int | None, typer.Option(min=1, help="Without IMAGES: images learned from; half if left out.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Without IMAGES: shuffles.")] = 5,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for label maps and overlays.")] = Path(
        "diffeat-segments"
    ),
    overwrite: Annotated[
        bool, typer.Option("--overwrite/--skip-existing", help="What to do with label maps that exist.")
    ] = False,
    t: Timestep = 50,
    prompt: Prompt = "",
    size: Size = None,
    seed: Seed = 0,
    num_noises: NumNoises = 1,
    recursive: Recursive = False,
    batch_size: BatchSize = 8,
    device: Device = "auto",
    dtype: DtypeOption = "auto",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    r"""Segment images by classes learned from a few masks.

    A classifier of single pixels learns from --images and --masks. For each image
    it writes NAME-labels.png, class numbers with a palette, and NAME-overlay.png,
    the classes over the image and their names below it.
    Without images it reports the mIoU of the label-scarce protocol: shuffle, learn
    from --train, judge the others, and again.

    [bold]Examples[/bold]

      diffeat segment path/to/sdxl photos/ --images few/ --masks few-masks/ \
        -p Ours-XL --classes "ground,horse"

      diffeat segment path/to/sd15 --images horses/ --masks horse-masks/ \
        -p Ours-v1.5 --probe mlp --train 30 --json

    Exit code: 0 all done, 1 some images could not be read, 2 nothing could be done.
    """
    failures: dict[str, str] = {}
    with user_errors(debug):
        if learn is None or masks is None:
            raise ValueError("--images and --masks must name folders of labelled pictures and of their masks")
        from diffeat.ranking import MaskLabels
        from diffeat.segment import PixelSegmenter

        wanted = chosen_names(names, preset)
        known = MaskLabels.read(learn, masks, classes=[each for each in (classes or "").split(",") if each])
        found = find_images(images, recursive=recursive) if images else []
        inputs = make_inputs(
            t=t, prompt=prompt, size=size, seed=seed, num_noises=num_noises, batch_size=batch_size
        )
        extractor = load_extractor(model, device=device, dtype=dtype)
        features = _features(extractor, [Path(str(each)) for each in known.images], wanted, inputs)
        if found:
            segmenter = PixelSegmenter(len(known.classes), probe=probe, side=side, pixels=pixels, seed=seed)
            segmenter.fit(features, known.masks)
            task = _Task(names=wanted, inputs=inputs, classes=known.classes, out=out, overwrite=overwrite)
            report, failures = _segment(extractor, segmenter, found, task)
        else:
            report = _judge(features, known, train or len(features) // 2, runs, probe, side, pixels)
    if json_output:
        typer.echo(json.dumps(report))
    report_broken(failures)


def _features(
    extractor: FeatureExtractor, images: list[Path], names: Sequence[str], inputs: Inputs
) -> list[Tensor]:
    features = read_features(extractor, images, names, inputs)
    spatial(features)
    return list(features.concat())


def _judge(
    features: list[Tensor],
    known: MaskLabels,
    train: int,
    runs: int,
    probe: Literal["logistic", "mlp"],
    side: int,
    pixels: int,
) -> dict[str, Any]:
    from diffeat.segment import label_scarce

    score = label_scarce(features, known, num_train=train, runs=runs, probe=probe, side=side, pixels=pixels)
    say(
        f"mIoU {score.mean:.4f} ± {score.deviation:.4f} over {runs} shuffles, learning from {train} of "
        f"{len(features)} images; classes absent from the judging images count 0"
    )
    return {"miou": score.mean, "deviation": score.deviation, "scores": list(score.scores), "train": train}


def _segment(
    extractor: FeatureExtractor, segmenter: PixelSegmenter, images: list[Path], task: _Task
) -> tuple[dict[str, Any], dict[str, str]]:
    from diffeat.pictures import name_files

    task.out.mkdir(parents=True, exist_ok=True)
    written: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    skipped = 0
    with progress("images") as bar:
        for done, (path, stem) in enumerate(zip(images, name_files(images), strict=True), 1):
            if not task.overwrite and (task.out / f"{stem}-labels.png").exists():
                skipped += 1
            else:
                try:
                    written.append(_one(extractor, segmenter, path, stem, task))
                except (ValueError, OSError) as error:
                    failures[path.name] = one_line(error)
            bar(done, len(images))
    say(
        f"{count(len(written), 'image')} segmented, {skipped} there before, {len(failures)} failed; "
        f"look in {task.out}"
    )
    return {"images": written, "skipped": skipped, "failed": failures}, failures


def _one(
    extractor: FeatureExtractor, segmenter: PixelSegmenter, path: Path, stem: str, task: _Task
) -> dict[str, Any]:
    from diffeat.images import load_images
    from diffeat.pictures import label_picture, overlay, palette_picture, to_picture, with_legend

    image = load_images(path)[0]
    inputs = task.inputs
    features = extractor([image], task.names, prompt=inputs.prompt, **inputs.recipe.arguments())
    height, width = image.shape[1:]
    factor = min(1.0, _LONGEST / max(height, width))
    labels = segmenter.predict(
        features.concat()[0], (max(1, round(height * factor)), max(1, round(width * factor)))
    )
    shown = to_picture(image)
    label_map = palette_picture(labels, len(task.classes)).resize(shown.size, 0)
    drawn = overlay(shown, label_picture(labels, len(task.classes)), opacity=0.55)
    with_legend(drawn, labels, task.classes).save(task.out / f"{stem}-overlay.png")
    part = task.out / f"{stem}-labels.part"
    label_map.save(part, format="PNG")
    part.replace(task.out / f"{stem}-labels.png")  # a label map that is there is whole
    counts = labels.flatten().bincount(minlength=len(task.classes)).double() / labels.numel()
    shares = {name: round(float(share), 4) for name, share in zip(task.classes, counts, strict=True)}
    return {"image": str(path), "labels": str(task.out / f"{stem}-labels.png"), "shares": shares}
