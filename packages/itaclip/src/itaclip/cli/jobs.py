# SPDX-License-Identifier: Apache-2.0
"""Which images become which files."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from itaclip.images import READABLE

# kinds of results with the endings of their files in an output folder
ENDINGS = {"overlay": "-overlay.png", "labels": "-labels.png", "html": ".html", "scores": "-scores.npz"}
# what one output file is, by its suffix
_SUFFIXES = {
    ".png": "overlay",
    ".jpg": "overlay",
    ".jpeg": "overlay",
    ".webp": "overlay",
    ".html": "html",
    ".npz": "scores",
}


@dataclass(frozen=True, slots=True)
class Job:
    """One image to segment.

    Attributes:
        source: Image to read.
        outputs: File to write, by kind.
    """

    source: Path
    outputs: dict[str, Path]

    def is_done(self) -> bool:
        """Return whether every file is there."""
        return all(path.exists() for path in self.outputs.values())


def parse_kinds(text: str) -> tuple[str, ...]:
    """Understand what ``--write`` says.

    Raises:
        ValueError: If a kind is unknown or none is named.
    """
    kinds = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not kinds or set(kinds) - set(ENDINGS):
        raise ValueError(f"--write takes any of {', '.join(ENDINGS)}, between commas, got {text!r}")
    return kinds


def collect_jobs(
    inputs: Sequence[str], output: Path, *, kinds: Sequence[str] | None = None, recursive: bool = False
) -> list[Job]:
    """Pair every input image with its outputs.

    Args:
        inputs: Files, folders or globs. A file is taken whatever its name; folders and globs give what has
            the suffix of an image, short of the results of earlier runs.
        output: The output file if there is one input file and this has the suffix of a result; else a folder,
            in which the sub-folders of an input folder come again.
        kinds: Keys of :data:`ENDINGS`; for a folder the first three, for a file what its suffix says, if
            ``None``.
        recursive: Whether to go into sub-folders.

    Returns:
        Jobs in a stable order.

    Raises:
        ValueError: If there is no image, two would become one file, one would replace a source, or the output
            cannot hold what is asked for or looks like a file where a folder is needed.
    """
    sources = list(_sources(inputs, recursive, output))
    if not sources:
        raise ValueError(f"no image found in {', '.join(inputs)} (looked for {', '.join(sorted(READABLE))})")
    one_file = len(sources) == 1 and not Path(inputs[0]).is_dir() and not output.is_dir()
    if one_file and output.suffix.lower() in _SUFFIXES:
        jobs = [Job(sources[0][0], {_kind_of(output, kinds): output})]
    elif output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file, but there are {len(sources)} images: give a folder")
    elif not output.exists() and output.suffix.lower() in {*_SUFFIXES, *READABLE}:
        if one_file:
            raise ValueError(f"a result is a {', '.join(_SUFFIXES)} file, or a folder, got {output}")
        raise ValueError(
            f"{output} is one file, but an input is a folder or there are several: give a folder"
        )
    else:
        kinds = ("overlay", "labels", "html") if kinds is None else kinds
        jobs = [
            Job(
                path,
                {kind: output / relative.with_name(relative.stem + ENDINGS[kind]) for kind in kinds},
            )
            for path, relative in sources
        ]
        # what an earlier run left beside its sources is no source, unless it is named as one
        named = {Path(text).resolve() for text in inputs}
        results = {path.resolve() for job in jobs for path in job.outputs.values()}
        jobs = [job for job in jobs if job.source.resolve() not in results - named]
    _refuse_clashes(jobs)
    return jobs


def _kind_of(output: Path, kinds: Sequence[str] | None) -> str:
    suffix = output.suffix.lower()
    if not kinds:
        return _SUFFIXES[suffix]
    wanted = kinds[0]
    if len(kinds) > 1:
        raise ValueError(f"{output} is one file, but --write names {len(kinds)}: give a folder")
    fits = suffix == ".png" if wanted == "labels" else _SUFFIXES[suffix] == wanted
    if not fits:
        raise ValueError(
            f"--write {wanted} is a {Path('x' + ENDINGS[wanted]).suffix} file, got {output.name}"
        )
    return wanted


def _refuse_clashes(jobs: Sequence[Job]) -> None:
    sources = {job.source.resolve() for job in jobs}
    written: dict[Path, Path] = {}
    for job in jobs:
        for path in job.outputs.values():
            place = path.resolve()
            if place in sources:
                raise ValueError(f"{path} would be overwritten by a result: give another folder")
            if place in written:
                raise ValueError(
                    f"{written[place]} and {job.source} would both become {path}: segment them apart"
                )
            written[place] = job.source


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
