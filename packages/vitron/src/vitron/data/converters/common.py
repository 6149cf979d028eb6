# SPDX-License-Identifier: Apache-2.0
"""Shared by the readers of public layouts: JSON, file names, conversations of one turn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError

from vitron.data.files import safe_path
from vitron.data.schema import Sample
from vitron.errors import DataError, explain
from vitron.protocol.contract import BoxRegion, Instruction, Invocation
from vitron.protocol.messages import MediaPart, Message, Part, RegionPart, TextPart, text_message

MAX_BYTES = 2_000_000_000
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")


def read_json(file: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DataError: If it is missing, too large, or not JSON.
    """
    if not file.is_file():
        raise DataError(f"{file} does not exist")
    if file.suffix in (".p", ".pkl", ".pickle"):
        raise DataError(f"{file} is a pickle, which can run code when it is read: convert it to JSON first")
    if file.stat().st_size > MAX_BYTES:
        raise DataError(f"{file} has more than {MAX_BYTES} bytes")
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON: {explain(error)}") from error


def find_json(source: Path, names: Sequence[str]) -> Path:
    """Return a file: ``source`` itself, or the first of some names, or patterns, in it.

    Raises:
        DataError: If there is none.
    """
    if source.is_file():
        return source
    for name in names:
        found = sorted(source.glob(name))
        if found:
            return found[0]
    raise DataError(f"{source} holds none of {', '.join(names)}")


def items_of(value: object, what: str) -> list[dict[str, Any]]:
    """Return a list of objects.

    Raises:
        DataError: If it is not a list of objects.
    """
    listed = cast("list[Any]", value) if isinstance(value, list) else None
    if listed is None or not all(isinstance(each, dict) for each in listed):
        raise DataError(f"{what} must be a list of objects, got {type(value).__name__}")
    return listed


def field(item: Mapping[str, Any], name: str, kind: type | tuple[type, ...], what: str) -> Any:
    """Return a field of an object.

    Raises:
        DataError: If it is missing or of another type.
    """
    if name not in item:
        raise DataError(f"{what} has no {name!r}")
    if not isinstance(item[name], kind) or isinstance(item[name], bool):
        raise DataError(f"{what}: {name!r} is a {type(item[name]).__name__}")
    return item[name]


def size_of(folder: Path, path: str) -> tuple[int, int]:
    """Return width and height of an image, read from its header.

    Raises:
        DataError: If it is missing or not an image.
    """
    file = safe_path(folder, path)
    try:
        with Image.open(file) as image:
            return image.size
    except FileNotFoundError as error:
        raise DataError(f"{file} does not exist") from error
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is not an image that can be read") from error


def box_of(pixels: Sequence[Any], size: tuple[int, int], what: str, frame: int | None = None) -> BoxRegion:
    """Return the box of left, top, right and bottom in pixels, clipped to the image.

    Args:
        pixels: Four numbers.
        size: Width and height.
        what: Owner of the box, for error messages.
        frame: Frame of a video.

    Raises:
        DataError: If it is not a box.
    """
    width, height = size
    try:
        x0, y0, x1, y1 = (float(each) for each in pixels)
        return BoxRegion(
            x0=min(max(x0 / width, 0), 1),
            y0=min(max(y0 / height, 0), 1),
            x1=min(max(x1 / width, 0), 1),
            y1=min(max(y1 / height, 0), 1),
            frame=frame,
        )
    except (TypeError, ValueError) as error:
        raise DataError(f"{what}: {explain(error)}") from error


def user_message(text: str, *, media: int = 1, regions: int = 0) -> Message:
    """Return a user message: media, then regions, then text."""
    parts: list[Part] = [MediaPart(media=number) for number in range(media)]
    parts += [RegionPart(region=number) for number in range(regions)]
    return Message(role="user", content=(*parts, TextPart(text=text)))


def call(module: str, verb: str, text: str, **more: Any) -> Invocation:
    """Return a call with one instruction."""
    return Invocation(module=module, instruction=(Instruction(verb=verb, text=text),), **more)


def assistant_message(text: str, *calls: Invocation) -> Message:
    """Return an assistant message."""
    return text_message("assistant", text, *calls)


def sample_of(what: str, **fields: Any) -> Sample:
    """Return a sample.

    Raises:
        DataError: If the values do not form a valid sample.
    """
    try:
        return Sample(**fields)
    except ValidationError as error:
        raise DataError(f"{what}: {explain(error)}") from error


def split_of(name: object) -> Literal["train", "val", "test"]:
    """Return the split that corresponds to the data set's own name."""
    word = str(name).lower()
    if word.startswith("val") or word in ("dev", "minival"):
        return "val"
    return "test" if word.startswith("test") else "train"


def image_by_id(folder: Path, prefix: str, number: object) -> str:
    """Return the path of a COCO image by its id, relative to the folder.

    Raises:
        DataError: If there is none.
    """
    names = [str(number)]
    if isinstance(number, int):
        names += [f"{number:012d}"]
    for name in names:
        for pattern in (f"{name}.*", f"*_{name}.*"):
            found = [
                file for file in sorted((folder / prefix).glob(pattern)) if file.suffix.lower() in SUFFIXES
            ]
            if found:
                return found[0].relative_to(folder).as_posix()
    raise DataError(f"{folder / prefix} holds no image {number}")
