# SPDX-License-Identifier: Apache-2.0
"""MagicBrush: images, instructions, masks and true results of edits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitron.data.converters.common import (
    assistant_message,
    call,
    field,
    find_json,
    items_of,
    read_json,
    sample_of,
    user_message,
)
from vitron.data.schema import Sample, SampleMedia, Targets
from vitron.errors import DataError


def read_magicbrush(source: Path) -> Iterator[Sample]:
    """Yield one sample for each turn of editing.

    The folder holds ``edit_turns.json`` (``input``, ``output``, ``instruction``), ``images/<id>/`` and, for
    the scores that need captions, ``global_descriptions.json``.

    Args:
        source: The folder.

    Raises:
        DataError: If the files do not hold that.
    """
    file = find_json(source, ("edit_turns.json",))
    folder = file.parent
    descriptions = folder / "global_descriptions.json"
    captions: dict[str, dict[str, str]] = read_json(descriptions) if descriptions.is_file() else {}
    for number, turn in enumerate(items_of(read_json(file), file.name)):
        what = f"{file.name}, item {number}"
        before, after, instruction = (
            str(field(turn, key, str, what)) for key in ("input", "output", "instruction")
        )
        group = before.split("-")[0]
        about: dict[str, Any] = captions.get(group, {})
        caption = about.get(after)
        yield sample_of(
            what,
            id=after.rsplit(".", 1)[0],
            task="image_editing",
            messages=(
                user_message(instruction),
                assistant_message("", call("image_editing", "edit", instruction)),
            ),
            media=(SampleMedia(path=_image(folder, group, before)),),
            targets=Targets(
                image=_image(folder, group, after),
                captions=(str(caption),) if caption else (),
                source_caption=about.get(before),
            ),
            split="test",
        )


def _image(folder: Path, group: str, name: str) -> str:
    for path in (f"images/{group}/{name}", f"images/{name}"):
        if ".." not in name and (folder / path).is_file():
            return path
    raise DataError(f"{folder / 'images' / group} holds no {name}")
