# SPDX-License-Identifier: Apache-2.0
"""Sentences that name an object in a video, with its box in each frame of a span, in the format of VidSTG."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitron.data.converters.common import (
    SUFFIXES,
    assistant_message,
    box_of,
    field,
    find_json,
    items_of,
    read_json,
    sample_of,
    user_message,
)
from vitron.data.files import safe_path
from vitron.data.schema import Sample, SampleMedia, Targets
from vitron.errors import DataError
from vitron.protocol.regions.text import format_frames, format_region


def read_vidstg(source: Path) -> Iterator[Sample]:
    """Yield one sample for each sentence.

    The file is a list of objects with ``video`` (a folder of frames, or a file), ``caption``, ``width``,
    ``height``, ``span`` (first and last frame) and ``boxes``: for each frame of the span ``[x, y, w, h]`` in
    pixels, as a list or by frame number. VidSTG and HC-STVG keep the same data in other files.

    Args:
        source: The file, or a folder with ``*.json``; videos lie beside it.

    Raises:
        DataError: If the file does not hold that.
    """
    file = find_json(source, ("*.json",))
    for number, item in enumerate(items_of(read_json(file), file.name)):
        what = f"{file.name}, item {number}"
        size = int(field(item, "width", int, what)), int(field(item, "height", int, what))
        span = [int(each) for each in field(item, "span", list, what)]
        if len(span) != 2 or not 0 <= span[0] <= span[1]:
            raise DataError(f"{what}: 'span' must be the first and the last frame, got {span}")
        boxes = tuple(
            box_of((x, y, x + wide, y + high), size, what, frame)
            for frame, (x, y, wide, high) in sorted(_boxes(item, span, what).items())
        )
        caption = str(field(item, "caption", str, what))
        where = format_region(boxes[0].model_copy(update={"frame": None}))
        answer = f"{where} {format_frames((span[0], span[1]))}"
        yield sample_of(
            what,
            id=str(item.get("id", number)),
            task="video_grounding",
            messages=(user_message(f"When and where is this: {caption}"), assistant_message(answer)),
            media=(_video(file.parent, str(field(item, "video", str, what)), what),),
            targets=Targets(boxes=boxes, span=(span[0], span[1])),
            split="test",
        )


def _boxes(item: dict[str, Any], span: list[int], what: str) -> dict[int, list[float]]:
    given = field(item, "boxes", (list, dict), what)
    pairs = given.items() if isinstance(given, dict) else enumerate(given, span[0])
    try:
        found = {int(frame): [float(each) for each in box] for frame, box in pairs}
    except (TypeError, ValueError) as error:
        raise DataError(f"{what}: 'boxes' must be four numbers for each frame") from error
    if (
        not found
        or any(len(box) != 4 for box in found.values())
        or not all(span[0] <= at <= span[1] for at in found)
    ):
        raise DataError(f"{what}: 'boxes' must be four numbers for frames of the span")
    return found


def _video(folder: Path, path: str, what: str) -> SampleMedia:
    place = safe_path(folder, path)
    if not place.is_dir():
        return SampleMedia(type="video", path=path)
    files = sorted(file for file in place.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"{what}: {place} holds no frames")
    return SampleMedia(type="video", path=tuple(file.relative_to(folder).as_posix() for file in files))
