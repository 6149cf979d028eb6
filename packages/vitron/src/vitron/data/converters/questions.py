# SPDX-License-Identifier: Apache-2.0
"""Questions with human answers, and captions of images, in the formats of VQA and COCO."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitron.data.converters.captions import Task, caption_sample
from vitron.data.converters.common import (
    assistant_message,
    field,
    find_json,
    image_by_id,
    items_of,
    read_json,
    sample_of,
    user_message,
)
from vitron.data.schema import Sample, SampleMedia, Targets
from vitron.errors import DataError


def read_vqa(source: Path) -> Iterator[Sample]:
    """Yield one sample for each question.

    The folder holds ``*questions*.json`` and ``*annotations*.json`` of VQA with images in ``images``; or
    one list of objects with ``image``, ``question`` and ``answer`` or ``answers``.

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
    notes = read_json(find_json(file.parent, ("*annotations*.json",)))
    answers = {
        each.get("question_id"): [
            str(one.get("answer", "")) for one in items_of(each.get("answers"), "answers")
        ]
        for each in items_of(notes.get("annotations"), "annotations")
    }
    for number, item in enumerate(items_of(found.get("questions"), "questions")):
        what = f"{file.name}, item {number}"
        key = item.get("question_id")
        if not answers.get(key):
            raise DataError(f"{what}: question {key} has no answers")
        image = image_by_id(file.parent, "images", item.get("image_id"))
        yield _question(what, str(key), image, str(field(item, "question", str, what)), answers[key])


def _plain(items: list[Any], file: Path) -> Iterator[Sample]:
    for number, item in enumerate(items_of(items, file.name)):
        what = f"{file.name}, item {number}"
        given = item.get("answers", item.get("answer"))
        answers = [str(each) for each in given] if isinstance(given, list) else [str(given)]
        if given is None or not answers:
            raise DataError(f"{what} has no 'answer'")
        image, question = (str(field(item, key, str, what)) for key in ("image", "question"))
        yield _question(what, str(item.get("id", number)), image, question, answers)


def _question(what: str, name: str, image: str, question: str, answers: list[str]) -> Sample:
    best = max(dict.fromkeys(answers), key=answers.count)
    return sample_of(
        what,
        id=name,
        task="vqa",
        messages=(user_message(f"{question} Answer with one word or phrase."), assistant_message(best)),
        media=(SampleMedia(path=image),),
        targets=Targets(answers=tuple(answers)),
        split="val",
    )


def read_captions(source: Path, *, task: Task = "caption") -> Iterator[Sample]:
    """Yield one sample for each image with captions in the format of COCO, images in ``images``.

    Args:
        source: The folder.
        task: Caption the image, or call the generator of images by the first caption alone.

    Raises:
        DataError: If the files do not hold that.
    """
    file = find_json(source, ("*captions*.json",))
    table = read_json(file)
    by_image = defaultdict[object, list[str]](list)
    for note in items_of(table.get("annotations"), "annotations"):
        by_image[note.get("image_id")].append(str(field(note, "caption", str, file.name)).strip())
    for number, image in enumerate(items_of(table.get("images"), "images")):
        captions = by_image.get(image.get("id"))
        if captions:
            path = image_by_id(file.parent, "images", image.get("id"))
            what = f"{file.name}, item {number}"
            yield caption_sample(what, str(image.get("id")), path, tuple(captions), task, split="val")
