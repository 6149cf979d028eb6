# SPDX-License-Identifier: Apache-2.0
"""Examples of the page: images and videos of the demo, each with a message about it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from vitron.data.files import read_example, read_samples
from vitron.protocol.media import Artefact

# tasks of the demo, one example each
_TASKS = ("referring_segmentation", "caption", "editing", "question", "tracking", "video_editing")


@dataclass(frozen=True, slots=True, eq=False)
class PageExample:
    """An example.

    Attributes:
        artefact: Image or video.
        text: User message about it.
        modules: Modules that the answer calls.
    """

    artefact: Artefact
    text: str
    modules: tuple[str, ...] = ()


@cache
def page_examples() -> tuple[PageExample, ...]:
    """Return the examples: drawn images and videos that no model was trained on."""
    folder = Path(str(resources.files("vitron") / "assets" / "demo"))
    found = dict[str, PageExample]()
    for _, sample in read_samples(folder):
        if sample.task in _TASKS and sample.task not in found and sample.media:
            example = read_example(sample, folder)
            calls = [call for message in sample.messages for call in message.calls]
            said = [f"{each.verb} {each.text}" for call in calls for each in call.instruction]
            # one call, in words: the messages of the demo have slips of the keyboard
            text = said[0] if len(said) == 1 else example.messages[0].text
            modules = tuple(call.module for call in calls)
            found[sample.task] = PageExample(example.media[0], text, modules)
    return tuple(found[task] for task in _TASKS if task in found)
