# SPDX-License-Identifier: Apache-2.0
"""Dialogues in the format of LLaVA, and the invocation data of the paper's release, which extends it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from vitron.data.converters.common import box_of, field, find_json, items_of, read_json, sample_of, size_of
from vitron.data.schema import Sample, SampleMedia, SampleRegion
from vitron.errors import DataError
from vitron.protocol import parse
from vitron.protocol.messages import MediaPart, Message, Part, RegionPart, TextPart

_TAG = re.compile(r"<(image|video|region|objs)>", re.IGNORECASE)
_REGION_TAGS = ("region", "objs")
_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
MAX_IMAGES = 16
MAX_MESSAGES = 64  # what comes behind is cut off
MAX_CHARACTERS = 32_000


def read_llava(source: Path) -> Iterator[Sample]:
    """Yield the dialogues of a LLaVA file: ``id``, ``image`` or ``video``, ``conversations``.

    A first turn of the assistant is skipped, as in the release. Of a dialogue of more than 64 messages or
    32,000 characters the end is cut off, behind an answer.

    Args:
        source: The file, or a folder with one JSON file; media lie beside it.

    Raises:
        DataError: If the file does not hold that.
    """
    yield from _read(source, "id", calls=False)


def read_release(source: Path) -> Iterator[Sample]:
    """Yield the invocation dialogues of the paper's release: ``idx``, media, ``bbox`` in pixels, tags.

    Calls are parsed by this package's parser, letters included. A box becomes a region on the first medium at
    the position of ``<objs>``, or ``<region>``. Boxes without such a tag, which the release writes for every
    image and shows to no model, are ignored.

    Args:
        source: The file, or a folder with one JSON file; media lie beside it.

    Raises:
        DataError: If the file does not hold that.
    """
    yield from _read(source, "idx", calls=True)


def _read(source: Path, key: str, *, calls: bool) -> Iterator[Sample]:
    file = find_json(source, ("*.json",))
    for number, item in enumerate(items_of(read_json(file), file.name)):
        what = f"{file.name}, item {number}"
        name = str(item.get(key, item.get("id", number)))
        media = _media(item, what)
        turns = _turns(items_of(field(item, "conversations", list, what), f"{what}, conversations"), what)
        shown = any(match[1].lower() in _REGION_TAGS for turn in turns for match in _TAG.finditer(turn.text))
        regions = _regions(item, media, file.parent, what) if calls and shown else ()
        messages = tuple(_messages(turns, len(media), len(regions), calls, what))
        yield sample_of(
            what,
            id=f"{name}-{number}",
            task="invocation" if any(message.calls for message in messages) else "dialogue",
            messages=messages,
            media=media,
            regions=regions,
            group=str(item.get("dataset_name", "")),
        )


def _media(item: dict[str, Any], what: str) -> tuple[SampleMedia, ...]:
    """Return videos before images, in the order of the first turn."""
    found = list[SampleMedia]()
    for kind in ("video", "image"):
        paths = item.get(kind) or []
        listed = [paths] if isinstance(paths, str) else paths
        if not isinstance(listed, list) or not all(isinstance(each, str) and each for each in listed):
            raise DataError(f"{what}: {kind!r} must be a path or a list of them")
        found += [SampleMedia(type=kind, path=each) for each in listed]
    if len(found) > MAX_IMAGES + 1:
        raise DataError(f"{what} has {len(found)} media, more than {MAX_IMAGES + 1}")
    return tuple(found)


def _regions(
    item: dict[str, Any], media: tuple[SampleMedia, ...], folder: Path, what: str
) -> tuple[SampleRegion, ...]:
    boxes = item.get("bbox") or []
    if not boxes:
        return ()
    if not media:
        raise DataError(f"{what} has a box but no image or video")
    listed = boxes if isinstance(boxes[0], list) else [boxes]
    size = size_of(folder, media[0].paths[0])
    frame = 0 if media[0].type == "video" else None
    return tuple(SampleRegion(region=box_of(each, size, what, frame)) for each in listed)


class _Turn(NamedTuple):
    role: str
    text: str
    where: str


def _turns(items: list[dict[str, Any]], what: str) -> list[_Turn]:
    """Return the turns of a dialogue, from the first of the user up to the last answer within the limits."""
    turns = list[_Turn]()
    for number, item in enumerate(items):
        where = f"{what}, turn {number}"
        role = _SPEAKERS.get(str(item.get("from", "")).lower())
        if role is None:
            raise DataError(f"{where} is from {item.get('from')!r}, which is neither human nor gpt")
        if turns or role != "assistant":
            turns.append(_Turn(role, str(field(item, "value", str, where)), where))
    total = accumulate(len(turn.text) for turn in turns)
    fits = sum(length <= MAX_CHARACTERS for length in total)
    if min(fits, MAX_MESSAGES) >= len(turns):
        return turns
    kept = turns[: min(fits, MAX_MESSAGES)]
    while kept and kept[-1].role != "assistant":
        kept.pop()
    if not kept:
        raise DataError(f"{what} has no answer within {MAX_CHARACTERS} characters")
    return kept


def _messages(turns: list[_Turn], media: int, regions: int, calls: bool, what: str) -> Iterator[Message]:
    left = {"media": list(range(media)), "region": list(range(regions))}
    for speaker, text, where in turns:
        if speaker == "assistant":
            read = parse(text) if calls else None
            if read is not None and read.issues:
                raise DataError(f"{where}: {read.issues[0].message}")
            plain = (text if read is None else read.text).strip()
            found = (
                () if read is None else tuple(c.model_copy(update={"source": None}) for c in read.invocations)
            )
            yield Message(role="assistant", content=(TextPart(text=plain),) if plain else (), calls=found)
            continue
        parts = list(_parts(text, left, where))
        if speaker == "user" and left["media"]:
            # media without a tag come first
            front: list[Part] = [MediaPart(media=each) for each in left["media"]]
            left["media"].clear()
            at = sum(part.type == "media" for part in parts)
            parts = [*parts[:at], *front, *parts[at:]]
        yield Message(role="system" if speaker == "system" else "user", content=tuple(parts))


def _parts(text: str, left: dict[str, list[int]], where: str) -> Iterator[Part]:
    """Yield texts, media and regions of a user message."""
    pieces = _TAG.split(text)
    for place, piece in enumerate(pieces):
        if place % 2 == 0:
            if piece.strip():
                yield TextPart(text=piece.strip("\n") if place else piece.rstrip("\n"))
            continue
        kind = "region" if piece.lower() in _REGION_TAGS else "media"
        if not left[kind]:
            raise DataError(f"{where} has more <{piece}> tags than the item has")
        number = left[kind].pop(0)
        yield RegionPart(region=number) if kind == "region" else MediaPart(media=number)
