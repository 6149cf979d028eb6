# SPDX-License-Identifier: Apache-2.0
"""Public layouts of data sets, read as samples of our own schema."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

from vitron.data.schema import Sample

__all__ = ["LAYOUTS", "read_layout"]

Reader = Callable[..., Iterator[Sample]]

LAYOUTS: dict[str, str] = {
    "captions": "questions:read_captions",
    "captions-generation": "questions:read_captions:text_to_image",
    "cc3m": "captions:read_cc3m",
    "cc3m-generation": "captions:read_cc3m:text_to_image",
    "davis": "davis:read_davis",
    "flickr30k": "flickr30k:read_flickr30k",
    "got10k": "tracks:read_got10k",
    "gqa": "gqa:read_gqa",
    "lasot": "tracks:read_lasot",
    "llava": "dialogues:read_llava",
    "magicbrush": "magicbrush:read_magicbrush",
    "mot": "tracks:read_mot",
    "refcoco": "refcoco:read_refcoco",
    "refcoco-box": "refcoco:read_refcoco:referring_box",
    "refcoco-caption": "refcoco:read_refcoco:region_caption",
    "release": "dialogues:read_release",
    "vidstg": "vidstg:read_vidstg",
    "vqa": "questions:read_vqa",
    "webvid": "captions:read_webvid",
    "webvid-generation": "captions:read_webvid:text_to_video",
}


def read_layout(layout: str, source: Path, **options: str) -> Iterator[Sample]:
    """Yield the samples of a public layout, paths relative to its folder.

    Args:
        layout: One of :data:`LAYOUTS`.
        source: Folder or file.
        options: Options of the reader, such as ``split``.

    Raises:
        ValueError: If there is no such layout, or it has no such option.
        vitron.errors.DataError: If the files do not hold what the layout asks for.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    module, name, *task = LAYOUTS[layout].split(":")
    reader: Reader = getattr(import_module(f"vitron.data.converters.{module}"), name)
    if task:
        reader = partial(reader, task=task[0])
    unknown = options.keys() - inspect.signature(reader).parameters.keys()
    if unknown:
        raise ValueError(f"{layout} has no {', '.join(sorted(unknown))}")
    return reader(source, **options)
