# SPDX-License-Identifier: Apache-2.0
"""Flickr30k Entities: captions whose phrases have boxes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from vitron.data.converters.common import assistant_message, box_of, sample_of, split_of, user_message
from vitron.data.schema import Sample, SampleMedia, Targets
from vitron.errors import DataError
from vitron.protocol.contract import BoxRegion
from vitron.protocol.regions.text import format_region

_PHRASE = re.compile(r"\[/EN#(\d+)(?:/[^\s\]]+)* ([^\]]+)\]")
MAX_XML = 4_000_000  # bytes


def read_flickr30k(source: Path, *, split: str | None = None) -> Iterator[Sample]:
    """Yield one sample for each caption with boxes: each phrase with its box, in the order of the caption.

    The folder holds ``Sentences/<id>.txt`` (phrases as ``[/EN#1/people A man]``), ``Annotations/<id>.xml``,
    and images in ``flickr30k-images`` or ``images``; ``train.txt``, ``val.txt`` and ``test.txt`` list ids.
    Of several boxes of a phrase the first is taken.

    Args:
        source: The folder.
        split: Name of a list; all images if ``None``.

    Raises:
        DataError: If the files do not hold that.
    """
    sentences, notes = source / "Sentences", source / "Annotations"
    if not sentences.is_dir() or not notes.is_dir():
        raise DataError(f"{source} must hold Sentences and Annotations")
    for name, part in _names(source, split):
        if not (sentences / f"{name}.txt").is_file():
            raise DataError(f"{sentences} holds no {name}.txt")
        boxes, image = _boxes(notes / f"{name}.xml"), _image(source, name)
        for number, line in enumerate((sentences / f"{name}.txt").read_text("utf-8").splitlines()):
            found = [(text, boxes[key]) for key, text in _PHRASE.findall(line) if key in boxes]
            if not found:
                continue
            caption = _PHRASE.sub(r"\2", line).strip()
            yield sample_of(
                f"{name}.txt, line {number + 1}",
                id=f"{name}-{number}",
                task="phrase_grounding",
                messages=(
                    user_message(f"Give the box of each phrase: {caption}"),
                    assistant_message("; ".join(f"{text} {format_region(box)}" for text, box in found)),
                ),
                media=(SampleMedia(path=image),),
                targets=Targets(boxes=tuple(box for _, box in found), captions=(caption,)),
                split=split_of(part),
            )


def _names(source: Path, split: str | None) -> Iterator[tuple[str, str]]:
    lists = [source / f"{name}.txt" for name in ([split] if split else ["train", "val", "test"])]
    listed = [file for file in lists if file.is_file()]
    if split and not listed:
        raise DataError(f"{lists[0]} does not exist")
    if not listed:
        yield from ((file.stem, "train") for file in sorted((source / "Sentences").glob("*.txt")))
    for file in listed:
        for name in file.read_text("utf-8").split():
            if Path(name).name != name:
                raise DataError(f"{file} names {name!r}, which is not an id")
            yield name, file.stem


def _boxes(file: Path) -> dict[str, BoxRegion]:
    """Return the first box of each phrase that has one."""
    if not file.is_file():
        raise DataError(f"{file} does not exist")
    text = file.read_text("utf-8")
    if len(text) > MAX_XML or "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(f"{file} is too large, or defines entities")
    try:
        root = ElementTree.fromstring(text)  # without entities there is nothing to expand
        width, height = (int(root.findtext(f"size/{side}", "")) for side in ("width", "height"))
        found = dict[str, BoxRegion]()
        for item in root.iter("object"):
            corners = item.find("bndbox")
            if corners is None:
                continue
            pixels = [float(corners.findtext(name, "")) for name in ("xmin", "ymin", "xmax", "ymax")]
            # corners are pixels, both included
            box = box_of((*pixels[:2], pixels[2] + 1, pixels[3] + 1), (width, height), file.name)
            for name in item.iter("name"):
                found.setdefault(str(name.text), box)
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{file} is not an annotation of Flickr30k Entities: {error}") from error
    return found


def _image(source: Path, name: str) -> str:
    for folder in ("flickr30k-images", "flickr30k_images", "images"):
        for suffix in (".jpg", ".png"):
            if (source / folder / f"{name}{suffix}").is_file():
                return f"{folder}/{name}{suffix}"
    return f"flickr30k-images/{name}.jpg"
