# SPDX-License-Identifier: Apache-2.0
"""The messages of a conversation, and the interface of what generates the assistant's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from vitron.protocol.contract import Invocation
from vitron.protocol.media import Artefact

__all__ = [
    "MediaPart",
    "Message",
    "MessageChunk",
    "MessageGenerator",
    "Part",
    "PlacedRegion",
    "RegionPart",
    "SamplingParams",
    "TextPart",
    "text_message",
]

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


def text_message(role: Literal["system", "user", "assistant"], text: str, *calls: Invocation) -> Message:
    """Return a message of words alone, with its calls.

    Example:
        >>> text_message("user", "how many stars are there?").text
        'how many stars are there?'
    """
    return Message(role=role, content=(TextPart(text=text),) if text else (), calls=calls)


class MessageChunk(NamedTuple):
    """A bit of a reply.

    Attributes:
        text: Characters, tags among them.
        signal: Signal embeddings ``(N, C)`` of the call whose signals this piece completes.
        tokens: How many the model wrote for it.
    """

    text: str
    signal: NDArray[np.float32] | None = None
    tokens: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How a reply is drawn.

    Attributes:
        max_new_tokens: Where it is cut off.
        temperature: 0 is greedy.
        top_p: Share of the probability that is drawn from.
        seed: Same talk and seed, same reply.
        constrained: Whether calls are held to the grammar.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    constrained: bool = True


class MessageGenerator(Protocol):
    """What writes the replies: a model, or a script in tests."""

    def stream(
        self,
        messages: Sequence[Message],
        media: Sequence[Artefact],
        regions: Sequence[PlacedRegion],
        sampling: SamplingParams,
    ) -> Iterator[MessageChunk]:
        """Write a reply to the last message; closing the iterator stops the work."""
        ...
