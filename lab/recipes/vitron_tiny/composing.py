# SPDX-License-Identifier: Apache-2.0
"""Building blocks of examples: user text, assistant text, calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from vitron.data.example import Example
from vitron.protocol.contract import Instruction, Invocation
from vitron.protocol.messages import MediaPart, Message, PlacedRegion, RegionPart, TextPart, text_message

from recipes.vitron_tiny.prompts import Family
from recipes.vitron_tiny.scenes import Draw, View

Bool = NDArray[np.bool_]


def user_text(draw: Draw, family: Family, mark: str = ".", **words: str) -> str:
    """Return a user text from a template, sometimes with please, a capital letter or a mark."""
    text = draw.pick(*family[draw.phrasing != "train"]).format(**words)
    luck = draw.rng.random()
    if luck < 0.1:
        text = f"please {text}"
    elif luck < 0.2:
        text = f"{text} please"
    return punctuated(draw, text, mark)


def punctuated(draw: Draw, text: str, mark: str) -> str:
    """Begin with a capital letter, and end with a mark, each in a part of all cases."""
    if draw.chance(0.3):
        text = text[0].upper() + text[1:]
    return text + mark if draw.chance(0.4) and text[-1].isalnum() else text


def call(module: str, *said: tuple[str, str]) -> Invocation:
    """Return a call of a module from verbs and texts."""
    return Invocation(
        module=module, instruction=tuple(Instruction(verb=verb, text=text) for verb, text in said)
    )


def example(
    task: str,
    text: str,
    reply: str,
    *calls: Invocation,
    view: View | None = None,
    region: Bool | None = None,
    frame: int = 0,
    masks: Mapping[int, Bool] | None = None,
    group: str = "",
) -> Example:
    """Return a conversation of one user message and one assistant message.

    Args:
        task: As :data:`recipes.vitron_tiny.tasks.TASKS` calls it.
        text: User text, behind the medium and the region.
        reply: Assistant text.
        calls: Calls of the assistant message.
        view: Medium.
        region: Mask of the region, ``(H, W)``.
        frame: Frame of a video, on which the region lies.
        masks: By position of the call, ``(T, H, W)``.
        group: Part of the task that is scored separately.
    """
    parts: list[MediaPart | RegionPart | TextPart] = []
    if view is not None:
        parts.append(MediaPart(media=0))
    if region is not None:
        parts.append(RegionPart(region=0))
    user = Message(role="user", content=(*parts, TextPart(text=text)))
    masks = masks or {}
    return Example(
        task=task,
        messages=(user, text_message("assistant", reply, *calls)),
        media=() if view is None else (view.media,),
        regions=() if region is None else (PlacedRegion(media=0, mask=region, frame=frame),),
        masks=masks,
        mask_media=dict.fromkeys(masks, 0),
        group=group,
    )


def listed(words: Sequence[str]) -> str:
    """Return words as "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
