# SPDX-License-Identifier: Apache-2.0
"""Data sets on disk: lines to samples, samples to examples, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from common_kernels.runtime.files import make_folder, write_bytes, write_text
from numpy.typing import NDArray
from pydantic import ValidationError

from vitron.data.example import Example
from vitron.data.schema import Sample, SampleMedia
from vitron.errors import DataError, MediaError, RegionError, explain
from vitron.protocol.contract import MAX_PIXELS
from vitron.protocol.media import MAX_FRAMES, Artefact, read_media
from vitron.protocol.messages import PlacedRegion
from vitron.protocol.regions.convert import box_in_pixels
from vitron.protocol.regions.raster import rasterise
from vitron.protocol.rle import decode_mask

__all__ = ["FILE", "read_example", "read_samples", "safe_path", "write_samples"]

FILE = "data.jsonl"
MAX_LINE = 32_000_000  # characters


def safe_path(folder: Path, path: str) -> Path:
    """Return the path of a file of a data set.

    Args:
        folder: Folder of the data set.
        path: Relative path, as its line gives it.

    Raises:
        DataError: If the path is not relative, or leads out of the folder, by ``..`` or by a link.
    """
    pure = PurePosixPath(path)
    if (
        pure.is_absolute()
        or PureWindowsPath(path).anchor
        or "\\" in path
        or "\0" in path
        or ".." in pure.parts
    ):
        raise DataError(f"a path must be relative and stay inside the data folder, got {path[:80]!r}")
    root = folder.resolve()
    place = (root / pure).resolve()
    if not place.is_relative_to(root):
        raise DataError(f"{path[:80]!r} leads out of the data folder")
    return folder / pure


def data_file(source: Path) -> Path:
    """Return the file of lines: ``source`` itself, or ``data.jsonl`` in it.

    Raises:
        DataError: If there is none.
    """
    file = source / FILE if source.is_dir() else source
    if not file.is_file():
        raise DataError(f"{file} does not exist: give a folder that holds {FILE}, or convert the data first")
    return file


def read_samples(
    source: Path, *, on_error: Callable[[DataError], None] | None = None
) -> Iterator[tuple[int, Sample]]:
    """Yield the samples of a data set with the numbers of their lines, from 1.

    Args:
        source: File of lines, or its folder. Empty lines are skipped.
        on_error: Called with the error of a line, which is then skipped; without it, the error is raised.

    Raises:
        DataError: If a line is not a sample, or an id comes twice; it names file and line.
    """
    file, seen = data_file(source), dict[str, int]()
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    yield number, _parse(line, seen, number)
                except DataError as error:
                    located = DataError(f"{file.name}, line {number}: {explain(error)}")
                    if on_error is None:
                        raise located from error
                    on_error(located)
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text") from error


def _parse(line: str, seen: dict[str, int], number: int) -> Sample:
    if len(line) > MAX_LINE:
        raise DataError(f"has {len(line)} characters, more than {MAX_LINE}")
    try:
        sample = Sample.model_validate_json(line)
    except ValidationError as error:
        raise DataError(explain(error)) from error
    if sample.id in seen:
        raise DataError(f"line {seen[sample.id]} has the same id {sample.id!r}")
    seen[sample.id] = number
    return sample


def read_sample_media(folder: Path, media: SampleMedia) -> Artefact:
    """Read an image or a video of a sample.

    Raises:
        DataError: If a path is unsafe.
        MediaError: If a file cannot be read, frames differ in size, or there are too many.
    """
    paths = [safe_path(folder, path) for path in media.paths]
    first, last = media.frames or (0, MAX_FRAMES - 1)
    if isinstance(media.path, str):
        found = read_media(paths[0], span=media.frames)
        if media.type == "image" and found.kind == "video":
            raise MediaError(f"{paths[0].name} is a video, and an image was expected")
        return found if found.kind == media.type else Artefact("video", found.frames)
    chosen = paths[first : last + 1]
    if len(paths) > MAX_FRAMES and media.frames is None:
        raise MediaError(f"a video has at most {MAX_FRAMES} frames, got {len(paths)}: choose some by frames")
    frames = list[NDArray[np.uint8]]()
    for path in chosen:
        frame = read_media(path).frames[0]
        if frames and frame.shape != frames[0].shape:
            raise MediaError(f"the frames of a video must have one size, and {path.name} has another")
        if (len(frames) + 1) * frame.shape[0] * frame.shape[1] > MAX_PIXELS:
            raise MediaError(f"a video has at most {MAX_PIXELS} pixels in all frames")
        frames.append(frame)
    return Artefact("video", np.stack(frames))


def read_example(sample: Sample, folder: Path) -> Example:
    """Read the media of a sample and draw its regions and masks.

    Args:
        sample: Sample of a line.
        folder: Folder of the data set.

    Raises:
        DataError: If a path is unsafe, a file cannot be read, or a region or mask does not fit.
    """
    try:
        media = tuple(read_sample_media(folder, each) for each in sample.media)
        regions = tuple(_place(each.region, each.media, media) for each in sample.regions)
        _check_numbers(sample, media)
        masks = {target.call: _masks(target.masks, media[target.media]) for target in sample.targets.masks}
    except (MediaError, RegionError) as error:
        raise DataError(f"{sample.id}: {explain(error)}") from error
    return Example(
        task=sample.task,
        messages=sample.messages,
        media=media,
        regions=regions,
        masks=masks,
        mask_media={target.call: target.media for target in sample.targets.masks},
        group=sample.group,
    )


def _check_numbers(sample: Sample, media: tuple[Artefact, ...]) -> None:
    """Refuse numbers of frames where only some frames of a video are read: they would mean others."""
    targets = sample.targets
    numbered = bool(targets.span or targets.masks or any(each.frame for each in targets.boxes))
    numbered = numbered or any(each.region.frame for each in sample.regions)
    for artefact, each in zip(media, sample.media, strict=True):
        if artefact.note and numbered:
            raise MediaError(
                f"of {each.path} {artefact.note} are used, and its targets or regions name frames: choose a "
                f"part of at most {MAX_FRAMES} frames by 'frames'"
            )


def _place(region: object, number: int, media: tuple[Artefact, ...]) -> PlacedRegion:
    shape, artefact = region, media[number]
    frame = int(getattr(shape, "frame", None) or 0)
    if frame >= artefact.num_frames:
        raise RegionError(
            f"medium {number} has {artefact.num_frames} frames, and frame {frame} is not one of them"
        )
    mask = rasterise(shape, *artefact.size)  # pyright: ignore[reportArgumentType]  # checked by the schema
    return PlacedRegion(media=number, mask=mask, frame=frame, box=box_in_pixels(shape, mask.shape))


def _masks(regions: Iterable[object], artefact: Artefact) -> NDArray[np.bool_]:
    """Draw the masks of a call, ``(T, H, W)``."""
    drawn = np.zeros((artefact.num_frames, *artefact.size), dtype=np.bool_)
    for region in regions:
        size, counts = getattr(region, "size", (0, 0)), getattr(region, "counts", ())
        frame = int(getattr(region, "frame", None) or 0)
        if tuple(size) != artefact.size or frame >= artefact.num_frames:
            raise RegionError(
                f"a mask of {tuple(size)} for frame {frame} does not fit {artefact.size}, "
                f"{artefact.num_frames} frames"
            )
        drawn[frame] |= decode_mask(counts, *size)
    return drawn


def write_samples(
    samples: Iterable[Sample],
    folder: Path,
    *,
    source: Path | None = None,
    on_error: Callable[[DataError], None] | None = None,
) -> int:
    """Write a data set: ``data.jsonl``, and the media beside it; an existing one is replaced.

    Args:
        samples: Samples.
        folder: Folder of the data set; created if missing.
        source: Folder of the files of the samples; they are copied to the same paths. ``None`` copies none.
        on_error: Called with the error of a sample whose path is unsafe or whose file is missing, which is
            then skipped; without it the first such error is raised, and no lines are written.

    Returns:
        Number of samples written.

    Raises:
        DataError: If a path is unsafe or a file is missing.
    """
    lines, copied = list[str](), set[str]()
    for sample in samples:
        paths = [path for each in sample.media for path in each.paths]
        paths += [sample.targets.image] if sample.targets.image else []
        try:
            if source is not None:
                for path in set(paths) - copied:
                    _copy(safe_path(source, path), safe_path(folder, path))
                    copied.add(path)
        except DataError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        lines.append(json.dumps(sample.model_dump(mode="json", exclude_none=True), ensure_ascii=False))
    make_folder(folder)
    write_text(folder / FILE, "".join(f"{line}\n" for line in lines))
    return len(lines)


def _copy(origin: Path, place: Path) -> None:
    if not origin.is_file():
        raise DataError(f"{origin} does not exist")
    if place.exists() and place.samefile(origin):
        return
    make_folder(place.parent)
    write_bytes(place, origin.read_bytes(), sync=False)
