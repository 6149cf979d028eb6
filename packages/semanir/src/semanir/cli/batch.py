# SPDX-License-Identifier: Apache-2.0
"""Many images: which, where to, and one after the other past every failure."""

from __future__ import annotations

import glob
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import typer
from rich.console import Console

from semanir.cli.output import progress_bar
from semanir.images import READABLE, WRITABLE, ImageError, Picture, read_picture, write_picture
from semanir.pictures import Panel, comparison

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.progress import Progress

    from semanir.restorer import Restorer


@dataclass(frozen=True, slots=True)
class Job:
    """One image to restore.

    Attributes:
        source: Image to read.
        target: Image to write.
        compare: Before/after picture to write, if any.
    """

    source: Path
    target: Path
    compare: Path | None


def collect_jobs(
    inputs: Sequence[str],
    output: Path,
    *,
    recursive: bool = False,
    suffix: str = "",
    file_format: str | None = None,
    compare: bool = False,
) -> list[Job]:
    """Pair every input image with its output.

    Args:
        inputs: Files, folders or globs. A file is taken whatever its name; folders and globs give what has
            the suffix of an image, short of the results of earlier runs.
        output: The output file if there is one input file and this has the suffix of an image; else a folder,
            in which the sub-folders of an input folder come again.
        recursive: Whether to go into sub-folders.
        suffix: Added to the stem of files in an output folder.
        file_format: Suffix of files in an output folder; that of the source if ``None``.
        compare: Whether to write before/after pictures.

    Returns:
        Jobs in a stable order.

    Raises:
        ValueError: If there is no image, two would become one file, one would replace a source, or the
            format is unknown.
    """
    if os.sep in suffix or "/" in suffix:
        raise ValueError(f"--suffix must not name a folder, got {suffix!r}")
    ending = None if file_format is None else f".{file_format.lower().lstrip('.')}"
    if ending is not None and ending not in WRITABLE:
        raise ValueError(f"--format must be one of {_names(WRITABLE)}, got {file_format!r}")
    sources = list(_sources(inputs, recursive, output))
    if not sources:
        raise ValueError(f"no image found in {', '.join(inputs)} (looked for {_names(READABLE)})")
    one_file = len(sources) == 1 and not Path(inputs[0]).is_dir() and not output.is_dir()
    if one_file and output.suffix.lower() in READABLE - WRITABLE:
        raise ValueError(f"{output} cannot be written: the suffix must be one of {_names(WRITABLE)}")
    if one_file and output.suffix.lower() in WRITABLE:
        jobs = [_job(sources[0][0], output, compare)]
    elif output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file, but there are {len(sources)} images: give a folder")
    else:
        named = {Path(text).resolve() for text in inputs}
        jobs = [
            _job(path, output / _renamed(relative, suffix, ending), compare) for path, relative in sources
        ]
        # what an earlier run left beside its sources is no source, unless it is named as one
        results = {p.resolve() for job in jobs for p in _outputs(job) if p.resolve() != job.source.resolve()}
        jobs = [job for job in jobs if job.source.resolve() not in results - named]
    _refuse_clashes(jobs)
    return jobs


def _job(source: Path, target: Path, compare: bool) -> Job:
    return Job(source, target, target.with_name(f"{target.stem}-compare.png") if compare else None)


def _outputs(job: Job) -> list[Path]:
    return [job.target] if job.compare is None else [job.target, job.compare]


def _refuse_clashes(jobs: Sequence[Job]) -> None:
    sources = {job.source.resolve() for job in jobs}
    written: dict[Path, Path] = {}
    for job in jobs:
        for path in _outputs(job):
            place = path.resolve()
            if place in sources:
                whose = "its result" if place == job.source.resolve() else f"the result of {job.source}"
                raise ValueError(f"{path} would be overwritten by {whose}: give --suffix or another folder")
            if place in written:
                raise ValueError(
                    f"{written[place]} and {job.source} would both become {path}: restore them apart"
                )
            written[place] = job.source


def _names(suffixes: frozenset[str]) -> str:
    return ", ".join(sorted(s.lstrip(".") for s in suffixes))


def _renamed(relative: Path, suffix: str, ending: str | None) -> Path:
    own = relative.suffix if relative.suffix.lower() in WRITABLE else ".png"
    return relative.with_name(f"{relative.stem}{suffix}{ending or own}")


def _sources(inputs: Sequence[str], recursive: bool, output: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each image and its path relative to the input that named it."""
    seen: set[Path] = set()
    results = output.resolve()
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            found = sorted(path.rglob("*") if recursive else path.iterdir())
            pairs = [(p, p.relative_to(path)) for p in found if _is_image(p)]
            if results.is_relative_to(path.resolve()) and results != path.resolve():
                pairs = [pair for pair in pairs if not pair[0].resolve().is_relative_to(results)]
        elif glob.has_magic(text) and not path.exists():
            matches = (Path(match) for match in sorted(glob.glob(text, recursive=recursive)))
            pairs = [(p, Path(p.name)) for p in matches if _is_image(p)]
        else:
            pairs = [(path, Path(path.name))]
        for source, relative in pairs:
            if source.resolve() not in seen:
                seen.add(source.resolve())
                yield source, relative


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in READABLE and not path.name.startswith(".") and path.is_file()


def run_jobs(
    jobs: Sequence[Job],
    restorer: Restorer,
    *,
    stderr: Console,
    options: Mapping[str, object],
    overwrite: bool,
    max_pixels: int,
    json_output: bool,
    debug: bool,
) -> int:
    """Do this process's share of the jobs; return how many failed.

    The shares follow the variables ``RANK`` and ``WORLD_SIZE``, which torchrun and accelerate set.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if not 0 <= rank < world_size:
        raise ValueError(f"RANK must lie in [0, WORLD_SIZE), got {rank} of {world_size}")
    mine = jobs[rank::world_size]
    counts = {"restored": 0, "skipped": 0, "failed": 0}
    with progress_bar(stderr) as bar:
        images = bar.add_task("images", total=len(mine))
        for job in mine:
            start = time.perf_counter()
            report: dict[str, object] = {"input": str(job.source), "output": str(job.target)}
            if job.target.exists() and not overwrite:
                report["status"] = "skipped"
                stderr.print(
                    f"{job.target} is there already, skipped (--overwrite replaces it)",
                    soft_wrap=True,
                    markup=False,
                )
            else:
                try:
                    report |= _restore_one(job, restorer, options, max_pixels, bar)
                # torch says out of memory with a RuntimeError
                except (ValueError, TypeError, OSError, MemoryError, RuntimeError) as error:
                    if debug:
                        raise
                    message = " ".join(str(error).split()) or "out of memory"
                    if not isinstance(error, ImageError):  # those name their file
                        message = f"{job.source}: {message}"
                    report |= {"status": "failed", "error": message}
                    stderr.print(
                        f"semanir: {message}", style="red", soft_wrap=True, highlight=False, markup=False
                    )
            counts[str(report["status"])] += 1
            report["seconds"] = round(time.perf_counter() - start, 3)
            if json_output:
                typer.echo(json.dumps(report))
            bar.advance(images)
    if len(mine) > 1:
        stderr.print(", ".join(f"{number} {status}" for status, number in counts.items() if number))
    return counts["failed"]


def _restore_one(
    job: Job, restorer: Restorer, options: Mapping[str, object], max_pixels: int, bar: Progress
) -> dict[str, object]:
    picture = read_picture(job.source, max_pixels=max_pixels)
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"the folder {job.target.parent} cannot be made: {error.strerror}") from error
    task = bar.add_task(job.source.name, total=None)
    try:
        restored = restorer.restore(
            picture.pixels,
            **options,  # pyright: ignore[reportArgumentType] - typed where the options are declared
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    finally:
        bar.remove_task(task)
    if job.compare is not None:  # before the result, whose presence says that the job is done
        before, after = _visible(picture.pixels, restored.shape[:2]), _visible(restored, restored.shape[:2])
        panels = [Panel("before", job.source.name, before), Panel("after", job.target.name, after)]
        write_picture(Picture(np.asarray(comparison(panels))), job.compare)
    write_picture(Picture(restored, picture.icc, picture.exif, picture.dpi), job.target)
    height, width = restored.shape[:2]
    return {"status": "restored", "width": width, "height": height}


def _visible(pixels: NDArray[np.generic], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return 8-bit grey or RGB of the given size, for the comparison only."""
    white = {"uint8": 255.0, "uint16": 65535.0}.get(pixels.dtype.name, 1.0)
    shown = np.round(np.clip(pixels.astype(np.float32) / white, 0, 1) * 255).astype(np.uint8)
    if shown.ndim == 3:
        shown = shown[..., :3] if shown.shape[2] >= 3 else shown[..., 0]
    factor = size[0] // shown.shape[0]
    return shown.repeat(factor, axis=0).repeat(factor, axis=1)
