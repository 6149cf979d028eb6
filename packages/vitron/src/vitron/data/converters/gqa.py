# SPDX-License-Identifier: Apache-2.0
"""Questions whose answers have boxes: GQA, and a plain list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vitron.data.converters.common import (
    assistant_message,
    box_of,
    field,
    find_json,
    image_by_id,
    items_of,
    read_json,
    sample_of,
    size_of,
    user_message,
)
from vitron.data.schema import Sample, SampleMedia, Targets
from vitron.errors import DataError
from vitron.protocol.contract import BoxRegion
from vitron.protocol.regions.text import format_region


def read_gqa(source: Path) -> Iterator[Sample]:
    """Yield one sample for each question whose words name an object: first its box, then the answer.

    The folder holds ``*questions*.json`` of GQA (objects by question id, with ``imageId``, ``question``,
    ``answer`` and ``annotations``), ``*sceneGraphs*.json`` and ``images``. Or one list of objects with
    ``image``, ``question``, ``answer`` and ``bbox`` (left, top, right, bottom in pixels).

    Args:
        source: The folder, or the list.

    Raises:
        DataError: If the files do not hold that.
    """
    file = find_json(source, ("*questions*.json", "*.json"))
    found = read_json(file)
    if isinstance(found, list):
        yield from _plain(found, file)
        return
    if not isinstance(found, dict):
        raise DataError(f"{file} must hold questions by their id")
    graphs: dict[str, Any] = read_json(find_json(file.parent, ("*sceneGraphs*.json", "*scene_graphs*.json")))
    for name, item in found.items():
        what = f"{file.name}, question {name}"
        if not isinstance(item, dict):
            raise DataError(f"{what} must be an object, got {type(item).__name__}")
        image = str(field(item, "imageId", str, what))
        box = _box(item, graphs.get(image), what)
        if box is not None:
            question, answer = (str(field(item, key, str, what)) for key in ("question", "answer"))
            yield _question(what, str(name), image_by_id(file.parent, "images", image), question, answer, box)


def _plain(items: list[Any], file: Path) -> Iterator[Sample]:
    for number, item in enumerate(items_of(items, file.name)):
        what = f"{file.name}, item {number}"
        image, question, answer = (
            str(field(item, key, str, what)) for key in ("image", "question", "answer")
        )
        box = box_of(field(item, "bbox", list, what), size_of(file.parent, image), what)
        yield _question(what, str(item.get("id", number)), image, question, answer, box)


def _question(what: str, name: str, image: str, question: str, answer: str, box: BoxRegion) -> Sample:
    return sample_of(
        what,
        id=name,
        task="grounded_question",
        messages=(
            user_message(f"{question} Give the box, then answer with one word or phrase."),
            assistant_message(f"{format_region(box)} {answer}"),
        ),
        media=(SampleMedia(path=image),),
        targets=Targets(boxes=(box,), answers=(answer,)),
        split="train",
    )


def _box(item: Mapping[str, Any], graph: Any, what: str) -> BoxRegion | None:
    """Return the box of the object of the answer, else of the first that the question names."""
    notes = item.get("annotations") or {}
    named = [key for part in ("answer", "question") for key in dict(notes.get(part) or {}).values()]
    if not named or not isinstance(graph, dict):
        return None
    about = graph.get("objects", {}).get(str(named[0]))
    if about is None:
        return None
    size = int(field(graph, "width", int, what)), int(field(graph, "height", int, what))
    x, y, wide, high = (float(field(about, key, (int, float), what)) for key in ("x", "y", "w", "h"))
    return box_of((x, y, x + wide, y + high), size, what)
