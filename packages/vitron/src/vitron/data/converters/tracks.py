# SPDX-License-Identifier: Apache-2.0
"""Boxes of objects in videos: LaSOT, GOT-10k, MOT16 and DanceTrack."""

from __future__ import annotations

import configparser
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vitron.data.converters.common import (
    SUFFIXES,
    assistant_message,
    box_of,
    sample_of,
    size_of,
    split_of,
    user_message,
)
from vitron.data.schema import Sample, SampleMedia, SampleRegion, Targets
from vitron.errors import DataError
from vitron.protocol.contract import BoxRegion
from vitron.protocol.messages import Message
from vitron.protocol.regions.text import format_frames, format_region

MAX_FRAMES = 32  # of a sequence of thousands, evenly spaced
Corners = tuple[float, float, float, float]  # left, top, width and height in pixels


def read_lasot(source: Path, *, split: str = "train") -> Iterator[Sample]:
    """Yield one sample for each sequence: when and where the object of its sentence can be seen.

    Folders of sequences, at any depth, hold ``img/00000001.jpg``, ``groundtruth.txt``, and optionally
    ``full_occlusion.txt``, ``out_of_view.txt`` (0 or 1 for each frame) and ``nlp.txt``, the sentence.

    Args:
        source: Folder.
        split: Part of the data set that the folder is.

    Raises:
        DataError: If the files do not hold that.
    """
    for folder in _sequences(source, "groundtruth.txt"):
        frames = _frames(folder / "img")
        hidden = [_flags(folder / name) for name in ("full_occlusion.txt", "out_of_view.txt")]
        boxes = {
            at: box
            for at, box in enumerate(_lines(folder / "groundtruth.txt"))
            if not any(at < len(each) and each[at] for each in hidden)
        }
        sentence = folder / "nlp.txt"
        kind = f"the {folder.name.partition('-')[0]}"
        text = sentence.read_text("utf-8").strip() if sentence.is_file() else kind
        yield from _grounding(source, folder, frames, boxes, text or kind, split)


def read_got10k(source: Path, *, split: str = "train") -> Iterator[Sample]:
    """Yield one sample for each sequence: when and where its object can be seen.

    Folders of sequences, at any depth, hold ``00000001.jpg``, ``groundtruth.txt``, and optionally
    ``absence.label`` (0 or 1 for each frame) and ``meta_info.ini`` with ``object_class``.

    Args:
        source: Folder.
        split: Part of the data set that the folder is.

    Raises:
        DataError: If the files do not hold that.
    """
    for folder in _sequences(source, "groundtruth.txt"):
        absent = _flags(folder / "absence.label")
        boxes = {
            at: box
            for at, box in enumerate(_lines(folder / "groundtruth.txt"))
            if not (at < len(absent) and absent[at])
        }
        name = _setting(folder / "meta_info.ini", "object_class") or "object"
        yield from _grounding(source, folder, _frames(folder), boxes, f"the {name}", split)


def read_mot(source: Path, *, split: str = "train") -> Iterator[Sample]:
    """Yield one sample for each tracked person: its first box is the region that the user marks.

    Folders of sequences, at any depth, hold ``img1/000001.jpg`` and ``gt/gt.txt`` with lines of frame, track,
    left, top, width, height, a flag and a class, as in MOT16, MOT17, MOT20 and DanceTrack. Lines with flag 0,
    or a class other than 1 (pedestrian), are left out.

    Args:
        source: Folder.
        split: Part of the data set that the folder is.

    Raises:
        DataError: If the files do not hold that.
    """
    for file in sorted(source.rglob("gt/gt.txt")):
        folder = file.parents[1]
        frames = _frames(folder / "img1")
        tracks = defaultdict[int, dict[int, Corners]](dict)
        for number, row in enumerate(_numbers(file, 6)):
            if (len(row) > 6 and not row[6]) or (len(row) > 7 and row[7] != 1):
                continue
            at = int(row[0]) - 1
            if not 0 <= at < len(frames):
                raise DataError(f"{file}, line {number + 1} names frame {at + 1} of {len(frames)}")
            tracks[int(row[1])][at] = (row[2], row[3], row[4], row[5])
        for track, boxes in sorted(tracks.items()):
            yield from _following(source, folder, frames, boxes, track, split)


def _grounding(
    source: Path, folder: Path, frames: Sequence[str], boxes: Mapping[int, Corners], text: str, split: str
) -> Iterator[Sample]:
    """Yield the sample of a sequence with a sentence, as :func:`read_vidstg` does."""
    chosen, found = _sampled(source, folder, frames, boxes)
    if not found:
        return
    span = found[0].frame or 0, found[-1].frame or 0
    answer = f"{format_region(_still(found[0]))} {format_frames(span)}"
    yield sample_of(
        folder.name,
        id=folder.relative_to(source).as_posix() if folder != source else folder.name,
        task="video_grounding",
        messages=(user_message(f"When and where is this: {text}"), assistant_message(answer)),
        media=(SampleMedia(type="video", path=chosen),),
        targets=Targets(boxes=found, span=span),
        split=split_of(split),
    )


def _following(
    source: Path, folder: Path, frames: Sequence[str], boxes: Mapping[int, Corners], track: int, split: str
) -> Iterator[Sample]:
    """Yield the sample of an object that the user marks on the first frame that shows it."""
    chosen, found = _sampled(source, folder, frames, boxes)
    if len(found) < 2:
        return
    span = found[0].frame or 0, found[-1].frame or 0
    asked: Message = user_message("Until when can this be seen, and where is it then?", regions=1)
    yield sample_of(
        folder.name,
        id=f"{folder.name}-{track}",
        task="video_tracking",
        messages=(asked, assistant_message(f"{format_region(_still(found[-1]))} {format_frames(span)}")),
        media=(SampleMedia(type="video", path=chosen),),
        regions=(SampleRegion(region=found[0]),),
        targets=Targets(boxes=found, span=span),
        split=split_of(split),
    )


def _sampled(
    source: Path, folder: Path, frames: Sequence[str], boxes: Mapping[int, Corners]
) -> tuple[tuple[str, ...], tuple[BoxRegion, ...]]:
    """Return at most ``MAX_FRAMES`` frames, evenly spaced, and the boxes on them by their new numbers."""
    count = min(len(frames), MAX_FRAMES)
    kept = [at * (len(frames) - 1) // max(1, count - 1) for at in range(count)]
    names = tuple((folder / frames[at]).relative_to(source).as_posix() for at in kept)
    size = size_of(source, names[0])
    found = list[BoxRegion]()
    for number, at in enumerate(kept):
        x, y, wide, high = boxes.get(at, (0.0, 0.0, 0.0, 0.0))
        if wide > 0 and high > 0 and x < size[0] and y < size[1] and x + wide > 0 and y + high > 0:
            found.append(box_of((x, y, x + wide, y + high), size, folder.name, number))
    return names, tuple(found)


def _still(box: BoxRegion) -> BoxRegion:
    return box.model_copy(update={"frame": None})


def _sequences(source: Path, file: str) -> list[Path]:
    found = sorted(each.parent for each in source.rglob(file))
    if not found:
        raise DataError(f"{source} holds no sequence with {file}")
    return found


def _frames(folder: Path) -> list[str]:
    """Return the names of the frames of a sequence, relative to its folder."""
    inner = "" if folder.name not in ("img", "img1") else f"{folder.name}/"
    files = sorted(each.name for each in folder.glob("*") if each.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"{folder} holds no frames")
    return [inner + name for name in files]


def _lines(file: Path) -> list[Corners]:
    """Return the box of each frame."""
    return [(x, y, wide, high) for x, y, wide, high, *_ in _numbers(file, 4)]


def _flags(file: Path) -> list[bool]:
    """Return a flag for each frame, which stand in a row or in lines; none if there is no file."""
    if not file.is_file():
        return []
    return [bool(value) for row in _numbers(file, 1) for value in row]


def _numbers(file: Path, least: int) -> Iterator[list[float]]:
    for number, line in enumerate(file.read_text("utf-8").splitlines()):
        if not line.strip():
            continue
        try:
            row = [float(each) for each in line.replace(",", " ").split()]
        except ValueError as error:
            raise DataError(f"{file}, line {number + 1} must be numbers: {error}") from error
        if len(row) < least:
            raise DataError(f"{file}, line {number + 1} has {len(row)} numbers, not {least}")
        # LaSOT and GOT-10k write nan where there is no box
        yield [0.0 if value != value else value for value in row]


def _setting(file: Path, name: str) -> str:
    """Return an entry of a file of settings; empty if there is none."""
    if not file.is_file():
        return ""
    settings = configparser.ConfigParser(interpolation=None)
    try:
        settings.read_string(file.read_text("utf-8"))
    except configparser.Error as error:
        raise DataError(f"{file} is not a file of settings: {error}") from error
    return next((part[name].strip() for part in settings.values() if name in part), "")
