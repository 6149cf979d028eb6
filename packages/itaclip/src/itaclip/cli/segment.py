# SPDX-License-Identifier: Apache-2.0
"""``itaclip segment``: images in, overlays, label maps and pages out."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from itaclip.cli.jobs import ENDINGS, Job, collect_jobs, parse_kinds
from itaclip.cli.options import (
    Background,
    BackgroundFirst,
    BatchSize,
    Cache,
    Classes,
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
    Texts,
    find_texts,
    parse_classes,
)
from itaclip.cli.output import one_line, progress_bar, stderr, stdout, user_errors, warn
from itaclip.images import MAX_PIXELS, ImageError, encode, read_image, save_file, shrink

if TYPE_CHECKING:
    from itaclip.model import ITACLIP
    from itaclip.pictures import Overlay
    from itaclip.results import Segmentation

_SCORE_NUMBERS = 2**27


def segment(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, quoted globs.", metavar="IN")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="A .png, .html or .npz for one input file, else a folder."),
    ],
    classes: Classes,
    background: Background = None,
    texts: Texts = None,
    background_first: BackgroundFirst = False,
    write: Annotated[
        str | None,
        typer.Option(
            help=f"What to write, between commas: {', '.join(ENDINGS)}; the first three if left out."
        ),
    ] = None,
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Of the colours on the picture.")] = 0.55,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Also the folders in a folder.")
    ] = False,
    overwrite: Overwrite = False,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse larger images.")] = MAX_PIXELS,
    max_side: Annotated[
        int,
        typer.Option(
            min=0,
            help="Segment larger images at this long side; results have their own size. 0: as they are.",
        ),
    ] = 2048,
    model: Model = "tiny-shapes",
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
    r"""Segment images by the classes you name.

    For photo.jpg an output folder gets photo-overlay.png (colours, legend),
    photo-labels.png (class numbers with a palette; 16 bits from 256 classes on)
    and photo.html (one file to look around in: switch classes, read
    probabilities). Finished images are skipped, so a run that was stopped goes
    on where it was. Under [bold]torchrun[/bold] or [bold]accelerate launch[/bold] the
    images are shared out among the processes.

    The shipped model tiny-shapes knows drawn shapes only. For photographs name
    a CLIP model of open_clip.

    [bold]Examples[/bold]

      itaclip segment shapes.png -c "red thing, blue thing" --background "leaves, tiles" -o out.png

      itaclip segment photo.jpg -c "cat, dog, sky" -o photo.html \
        --model ViT-B-16 --pretrained openai

      itaclip segment photos/ -r -c "person|man|woman, bicycle" --background auto \
        -o out/ --model ViT-B-16 --pretrained openai

      itaclip segment "shots/*.png" -c voc21 --preset voc21 --texts auto \
        -o out/ --model ViT-B-16 --pretrained openai --json > report.jsonl

      itaclip segment photo.jpg -c classes.txt -o labels.png --write labels \
        --set stride=56 --model ./my-clip

    Exit code: 0 all done, 1 some images failed, 2 nothing could be done.
    """
    with user_errors(debug):
        kinds = None if write is None else parse_kinds(write)
        jobs = collect_jobs(inputs, output, kinds=kinds, recursive=recursive)
        chosen = parse_classes(classes, background=background, background_first=background_first)
        if len(chosen) == 1:
            warn('there is only one class, so every pixel gets it: add classes or --background "auto"')
        source = find_texts(texts, classes)
        options = ModelOptions(
            model=model,
            pretrained=pretrained,
            preset=preset,
            settings=settings or (),
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            cache=cache,
        )
        config = options.config()
        segmenter = options.load(config).set_classes(chosen, aux=source)
        report = Report(json_output, debug)
        run = Run(segmenter, opacity=opacity, max_pixels=max_pixels, max_side=max_side)
        run_jobs(jobs, run, report, overwrite=overwrite)
    raise typer.Exit(1 if report.counts["failed"] else 0)


class Report:
    """Says what became of each image.

    Args:
        json_output: Whether one JSON object per image goes to stdout.
        debug: Whether errors are raised.
    """

    def __init__(self, json_output: bool, debug: bool) -> None:
        self.json_output, self.debug = json_output, debug
        self.counts = {"segmented": 0, "skipped": 0, "failed": 0}

    def add(self, entry: dict[str, object]) -> None:
        """Count and show one image."""
        self.counts[str(entry["status"])] += 1
        if self.json_output:
            typer.echo(json.dumps(entry, ensure_ascii=False))

    def tell(self, job: Job, entry: dict[str, object]) -> None:
        """Say of a single image what was written, and what was seen."""
        classes = entry.get("classes")
        if self.json_output or not isinstance(classes, list):
            return
        seen = [f"{each['name']} {each['share']:.0%}" for each in classes if each["share"] >= 0.005]
        files = ", ".join(map(str, job.outputs.values()))
        stdout.print(f"{files}: {', '.join(seen)}", soft_wrap=True, markup=False, highlight=False)

    def summarise(self) -> None:
        """Show the counts."""
        stderr.print(", ".join(f"{number} {status}" for status, number in self.counts.items() if number))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    opacity: float
    max_pixels: int
    max_side: int


class Run:
    """Segments one image after the other and writes what was asked for.

    Args:
        segmenter: With its classes set.
        opacity: Of the overlay.
        max_pixels: Larger images are refused.
        max_side: Larger images are segmented at this long side; 0 for no limit.
    """

    def __init__(self, segmenter: ITACLIP, *, opacity: float, max_pixels: int, max_side: int) -> None:
        self.segmenter = segmenter
        self.limits = _Limits(opacity=opacity, max_pixels=max_pixels, max_side=max_side)

    def do(self, job: Job, progress: Callable[[int, int], None] | None = None) -> dict[str, object]:
        """Segment an image, write its files, and return what to report.

        Raises:
            ImageError: If the image cannot be read or a file not written.
        """
        from itaclip.pictures import Overlay

        image = read_image(job.source, max_pixels=self.limits.max_pixels)
        shown = shrink(image, self.limits.max_side)
        # pages show the best three classes where that costs no more than half a gigabyte
        light = len(self.segmenter.class_names) * shown.width * shown.height <= _SCORE_NUMBERS
        wanted = "scores" in job.outputs or ("html" in job.outputs and light)
        (found,) = self.segmenter.stream([shown], return_scores=wanted, progress=progress)
        overlay = Overlay(shown, found, opacity=self.limits.opacity)
        for kind, path in job.outputs.items():
            save_file(path, self._encode(kind, path, overlay, (image.height, image.width)))
        scores = {mask["label"]: round(mask["score"], 4) for mask in found.masks(background=True)}
        return {
            "status": "segmented",
            "width": image.width,
            "height": image.height,
            "classes": [
                {"name": name, "share": round(share, 5), "probability": scores[name]}
                for name, share in found.shares().items()
            ],
        }

    def _encode(self, kind: str, path: Path, overlay: Overlay, size: tuple[int, int]) -> bytes:
        from itaclip.html import page
        from itaclip.pictures import encode_labels

        if kind == "html":
            return page(
                overlay.image, overlay.segmentation, overlay.colours, opacity=overlay.opacity, title=path.stem
            ).encode("utf-8")
        if kind == "overlay":
            return encode(overlay.render_with_legend(), path.suffix)
        if kind == "labels":
            return encode_labels(overlay.segmentation.resized(size))
        return encode_scores(overlay.segmentation)


def encode_scores(segmentation: Segmentation) -> bytes:
    """Return an ``.npz`` of ``scores (classes, H, W)`` in fp16, ``labels`` and ``names``.

    Raises:
        ValueError: If the segmentation has no scores.
    """
    if segmentation.scores is None:
        raise ValueError("the segmentation was made without scores")
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        scores=segmentation.scores.numpy().astype(np.float16),
        labels=segmentation.labels.numpy().astype(np.uint16),
        names=np.array(segmentation.names),
    )
    return buffer.getvalue()


def run_jobs(jobs: Sequence[Job], run: Run, report: Report, *, overwrite: bool) -> None:
    """Do this process's share of the jobs, past every failure.

    The shares follow the variables ``RANK`` and ``WORLD_SIZE``, which torchrun and accelerate set.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if not 0 <= rank < world_size:
        raise ValueError(f"RANK must lie in [0, WORLD_SIZE), got {rank} of {world_size}")
    mine = jobs[rank::world_size]
    with progress_bar() as bar:
        images = bar.add_task("images", total=len(mine))
        for job in mine:
            start = time.perf_counter()
            entry: dict[str, object] = {
                "input": str(job.source),
                "outputs": {kind: str(path) for kind, path in job.outputs.items()},
            }
            if not overwrite and job.is_done():
                entry["status"] = "skipped"
                warn(f"{job.source}: the results are there, skipped (--overwrite replaces them)", style="dim")
            else:
                windows = bar.add_task(job.source.name, total=None)
                try:
                    entry |= run.do(
                        job, lambda done, total, at=windows: bar.update(at, completed=done, total=total)
                    )
                # torch says out of memory with a RuntimeError
                except (ValueError, TypeError, OSError, MemoryError, RuntimeError) as error:
                    if report.debug:
                        raise
                    message = one_line(error)
                    if not isinstance(error, ImageError):  # those name their file
                        message = f"{job.source}: {message}"
                    entry |= {"status": "failed", "error": message}
                    warn(message, style="red")
                finally:
                    bar.remove_task(windows)
            entry["seconds"] = round(time.perf_counter() - start, 3)
            report.add(entry)
            bar.advance(images)
            if len(jobs) == 1:
                report.tell(job, entry)
    if len(mine) > 1:
        report.summarise()
