# SPDX-License-Identifier: Apache-2.0
"""One dialogue, in memory: messages, the media and regions that they speak of, and the truth to learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from vitron.contract import Invocation
from vitron.media import Artefact

__all__ = ["Example", "MediaPart", "Message", "Part", "PlacedRegion", "RegionPart", "TextPart", "plain"]

Position = Annotated[int, Field(ge=0, strict=True)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextPart(_Model):
    """Words."""

    type: Literal["text"] = "text"
    text: str


class MediaPart(_Model):
    """A picture or a clip, by its position among the media of the dialogue."""

    type: Literal["media"] = "media"
    media: Position


class RegionPart(_Model):
    """A region, by its position among the regions of the dialogue."""

    type: Literal["region"] = "region"
    region: Position


Part = Annotated[TextPart | MediaPart | RegionPart, Field(discriminator="type")]


class Message(_Model):
    """What one side says.

    Attributes:
        role: Who. A system message can only come first.
        content: Words, media and regions, in order. What an assistant says is words alone.
        calls: What an assistant calls for, written behind its words.
    """

    role: Literal["system", "user", "assistant"]
    content: tuple[Part, ...] = ()
    calls: tuple[Invocation, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Message:
        if self.role != "assistant" and self.calls:
            raise ValueError(f"only an assistant calls modules, not the {self.role}")
        if self.role == "assistant" and any(part.type != "text" for part in self.content):
            raise ValueError("an assistant says words and makes calls; media and regions come from the user")
        return self

    @property
    def text(self) -> str:
        """The words alone."""
        return "".join(part.text for part in self.content if part.type == "text")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedRegion:
    """A region on one of the media.

    Attributes:
        media: Which of the media.
        mask: ``(H, W)`` boolean, in the medium's size.
        frame: Frame of a clip, from 0.
    """

    media: int
    mask: NDArray[np.bool_]
    frame: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Example:
    """A dialogue and, for learning, its truth.

    Attributes:
        task: Name of what it teaches, as ``"referring_segmentation"``; for balancing and for scores.
        messages: In order.
        media: Pictures and clips.
        regions: What the regions of the messages are.
        masks: For a call that has a true mask: its position among all calls of the dialogue, to ``(T, H, W)``
            boolean of the frames of the medium ``mask_media`` names.
        mask_media: Which of the media each of the ``masks`` lies on.
        group: A part of the task that is scored apart, as ``"relation"``.
        conditions: For a call that makes something from words: what a generator's text encoder gives for
            them, ``(n, C)``, by the call's position.
    """

    task: str
    messages: tuple[Message, ...]
    media: tuple[Artefact, ...] = ()
    regions: tuple[PlacedRegion, ...] = ()
    masks: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict[int, NDArray[np.bool_]])
    mask_media: Mapping[int, int] = field(default_factory=dict[int, int])
    group: str = ""
    conditions: Mapping[int, NDArray[np.float32]] = field(default_factory=dict[int, NDArray[np.float32]])


def plain(role: Literal["system", "user", "assistant"], text: str, *calls: Invocation) -> Message:
    """Return a message of words alone, with its calls.

    Example:
        >>> plain("user", "how many stars are there?").text
        'how many stars are there?'
    """
    return Message(role=role, content=(TextPart(text=text),) if text else (), calls=calls)
