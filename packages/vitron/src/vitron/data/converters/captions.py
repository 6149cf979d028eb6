# SPDX-License-Identifier: Apache-2.0
"""Captions of images and videos, and the calls that would generate what they describe."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vitron.data.converters.common import (
    SUFFIXES,
    assistant_message,
    call,
    field,
    items_of,
    read_json,
    sample_of,
    user_message,
)
from vitron.data.files import safe_path
from vitron.data.schema import Sample, SampleMedia, Targets
from vitron.errors import DataError

Task = Literal["caption", "video_caption", "text_to_image", "text_to_video"]


class _Captioned(NamedTuple):
    name: str
    path: str
    caption: str


def read_cc3m(source: Path, *, task: Task = "caption") -> Iterator[Sample]:
    """Yield one sample for each image with a caption, as in CC3M, CC12M, LAION and their like.

    Either the files that img2dataset writes (``00000/000000012.jpg`` with ``.txt``, and ``.json`` whose
    ``status`` may be other than ``success``), or a TSV of captions and paths, with or without a header, or a
    JSON list of objects with ``image`` and ``caption``.

    Args:
        source: Folder, or TSV or JSON file; images lie beside it.
        task: Caption the image, or call the generator of images by the caption alone.

    Raises:
        DataError: If the files do not hold that.
    """
    found = _table(source, "image") if source.is_file() else _pairs(source)
    yield from _samples(found, source, task)


def read_webvid(source: Path, *, task: Task = "video_caption") -> Iterator[Sample]:
    """Yield one sample for each video with a caption, as in WebVid.

    The CSV of WebVid has ``videoid``, ``page_dir`` and ``name``, the caption; videos lie in
    ``videos/<page_dir>/<videoid>.mp4``, or in ``<page_dir>/``. Or a JSON list of objects with ``video`` and
    ``caption``.

    Args:
        source: CSV or JSON file, or a folder with one.
        task: Caption the video, or call the generator of videos by the caption alone.

    Raises:
        DataError: If the file does not hold that.
    """
    file = source if source.is_file() else _first(source, ("*.csv", "*.json"))
    yield from _samples(_table(file, "video") if file.suffix != ".csv" else _webvid(file), file, task)


def _samples(found: Iterator[_Captioned], source: Path, task: Task) -> Iterator[Sample]:
    for number, each in enumerate(found):
        what = f"{source.name}, item {number}"
        caption = " ".join(each.caption.split())
        if not caption:
            raise DataError(f"{what} has no caption")
        yield caption_sample(what, each.name, each.path, (caption,), task)


def caption_sample(
    what: str, name: str, path: str, captions: tuple[str, ...], task: Task, *, split: str = "train"
) -> Sample:
    """Return a sample of a captioned image or video.

    Args:
        what: Item, for error messages.
        name: Id of the sample.
        path: File of the image or video.
        captions: Captions; the first is the one to say.
        task: ``caption``, ``video_caption``; or ``text_to_image``, ``text_to_video``: the call that generates
            what the first caption describes, without the medium.
        split: Part of the data set.
    """
    if task in ("text_to_image", "text_to_video"):
        kind = task.removeprefix("text_to_")
        made = call(task, "generate", captions[0])
        messages = (
            user_message(f"Make {'an image' if kind == 'image' else 'a video'}: {captions[0]}", media=0),
            assistant_message("", made),
        )
        return sample_of(
            what, id=name, task=task, messages=messages, targets=Targets(captions=captions), split=split
        )
    kind = "image" if task == "caption" else "video"
    return sample_of(
        what,
        id=name,
        task=task,
        messages=(user_message(f"Describe the {kind} in one sentence."), assistant_message(captions[0])),
        media=(SampleMedia(type=kind, path=path),),
        targets=Targets(captions=captions),
        split=split,
    )


def _pairs(folder: Path) -> Iterator[_Captioned]:
    """Read what img2dataset writes with ``output_format="files"``."""
    texts = sorted(folder.rglob("*.txt"))
    if not texts:
        raise DataError(f"{folder} holds no images with .txt files of their captions")
    for text in texts:
        about = text.with_suffix(".json")
        record: dict[str, Any] = read_json(about) if about.is_file() else {}
        images = [text.with_suffix(suffix) for suffix in SUFFIXES if text.with_suffix(suffix).is_file()]
        if record.get("status", "success") != "success" or not images:
            continue  # the download of this one failed
        path = images[0].relative_to(folder)
        yield _Captioned(path.with_suffix("").as_posix(), path.as_posix(), text.read_text("utf-8"))


def _table(file: Path, kind: str) -> Iterator[_Captioned]:
    """Read a JSON list of objects with a medium and ``caption``, or a TSV of captions and paths."""
    if file.suffix == ".json":
        for number, item in enumerate(items_of(read_json(file), file.name)):
            what = f"{file.name}, item {number}"
            path, caption = (str(field(item, name, str, what)) for name in (kind, "caption"))
            yield _Captioned(str(item.get("id", number)), path, caption)
        return
    for number, row in enumerate(_rows(file, delimiter="\t")):
        if len(row) < 2:
            raise DataError(f"{file.name}, line {number + 1} must be a caption, a tab and a path")
        if number == 0 and row[0].lower() in ("caption", "title", "text"):
            continue
        if "://" in row[1]:
            raise DataError(
                f"{file.name}, line {number + 1} gives an address: download the images first, such as by "
                "img2dataset, and convert its folder"
            )
        yield _Captioned(str(number), row[1].strip(), row[0])


def _webvid(file: Path) -> Iterator[_Captioned]:
    rows = _rows(file, delimiter=",")
    header = next(rows, [])
    missing = [name for name in ("videoid", "name") if name not in header]
    if missing:
        raise DataError(f"{file.name} has no column {missing[0]!r}")
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise DataError(f"{file.name}, line {number + 2} has {len(row)} columns, not {len(header)}")
        item = dict(zip(header, row, strict=True))
        name = item["videoid"].strip()
        inner = "/".join(part for part in (item.get("page_dir", "").strip(), f"{name}.mp4") if part)
        places = (f"videos/{inner}", inner, f"videos/{name}.mp4")
        path = next((each for each in places if safe_path(file.parent, each).is_file()), places[0])
        yield _Captioned(name, path, item["name"])


def _rows(file: Path, *, delimiter: str) -> Iterator[list[str]]:
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL, strict=False):
                if row:
                    yield row
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is not a table in UTF-8: {error}") from error


def _first(folder: Path, patterns: tuple[str, ...]) -> Path:
    for pattern in patterns:
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
    raise DataError(f"{folder} holds none of {', '.join(patterns)}")
