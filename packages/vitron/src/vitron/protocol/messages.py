# SPDX-License-Identifier: Apache-2.0
"""The messages of a conversation, and the interface of message generators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from vitron.protocol.contract import Invocation, MediaKind
from vitron.protocol.escape import without_surrogates
from vitron.protocol.media import Artefact
from vitron.protocol.sampling import SamplingParams

__all__ = [
    "HANDLE_PREFIXES",
    "MediaPart",
    "Message",
    "MessageChunk",
    "MessageGenerator",
    "Part",
    "PlacedRegion",
    "RegionPart",
    "TextPart",
    "TokenCounter",
    "media_handles",
    "region_handle",
    "text_message",
]

HANDLE_PREFIXES: dict[MediaKind, str] = {"image": "img", "video": "vid", "masks": "mask"}

Position = Annotated[int, Field(ge=0, strict=True)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextPart(_Model):
    """Text; half a surrogate pair is replaced by U+FFFD."""

    type: Literal["text"] = "text"
    text: Annotated[str, AfterValidator(without_surrogates)]


class MediaPart(_Model):
    """An image or a video, by its position among the media of the conversation."""

    type: Literal["media"] = "media"
    media: Position


class RegionPart(_Model):
    """A region, by its position among the regions of the conversation."""

    type: Literal["region"] = "region"
    region: Position


Part = Annotated[TextPart | MediaPart | RegionPart, Field(discriminator="type")]


class Message(_Model):
    """A message of a conversation.

    Attributes:
        role: Author. A system message can only come first.
        content: Text, media and regions, in order; text alone in an assistant message.
        calls: Calls of an assistant message, behind its text.
    """

    role: Literal["system", "user", "assistant"]
    content: tuple[Part, ...] = ()
    calls: tuple[Invocation, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Message:
        if self.role != "assistant" and self.calls:
            raise ValueError(f"only an assistant message has calls, not a {self.role} message")
        if self.role == "assistant" and any(part.type != "text" for part in self.content):
            raise ValueError("an assistant message has text and calls; media and regions come from the user")
        return self

    @property
    def text(self) -> str:
        """The text alone."""
        return "".join(part.text for part in self.content if part.type == "text")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlacedRegion:
    """A region on one of the media.

    Attributes:
        media: Position of the medium.
        mask: Mask ``(H, W)``, boolean, in the size of the medium.
        frame: Frame of a video, from 0.
        box: Left, top, right and bottom in pixels, not rounded, if the region is a box.
    """

    media: int
    mask: NDArray[np.bool_]
    frame: int = 0
    box: tuple[float, float, float, float] | None = None


def media_handles(kinds: Sequence[MediaKind]) -> list[str]:
    """Return the handle of each medium of a conversation.

    Example:
        >>> media_handles(["image", "masks", "image"])
        ['img_1', 'mask_1', 'img_2']
    """
    counts = dict.fromkeys(HANDLE_PREFIXES, 0)
    handles = list[str]()
    for kind in kinds:
        counts[kind] += 1
        handles.append(f"{HANDLE_PREFIXES[kind]}_{counts[kind]}")
    return handles


def region_handle(position: int) -> str:
    """Return the handle of a region of the user, by its position in the conversation from 0."""
    return f"region_{position + 1}"


def text_message(role: Literal["system", "user", "assistant"], text: str, *calls: Invocation) -> Message:
    """Return a message of text, with its calls.

    Example:
        >>> text_message("user", "how many stars are there?").text
        'how many stars are there?'
    """
    return Message(role=role, content=(TextPart(text=text),) if text else (), calls=calls)


class MessageChunk(NamedTuple):
    """The next characters of an assistant message.

    Attributes:
        text: Characters, tags among them.
        signal: Signal embeddings ``(N, C)`` of the call whose signals this chunk completes.
        tokens: Number of tokens.
    """

    text: str
    signal: NDArray[np.float32] | None = None
    tokens: int = 1


class MessageGenerator(Protocol):
    """Interface of generators of assistant messages: a model, or a script in tests."""

    def stream(
        self,
        messages: Sequence[Message],
        media: Sequence[Artefact],
        regions: Sequence[PlacedRegion],
        sampling: SamplingParams,
    ) -> Iterator[MessageChunk]:
        """Generate the answer to the last message; closing the iterator stops the generation."""
        ...


@runtime_checkable
class TokenCounter(Protocol):
    """What a generator may have besides: the number of tokens of a conversation, and the most it can read."""

    @property
    def context_length(self) -> int | None:
        """Tokens that prompt and message may have together; ``None`` if there is no limit."""
        ...

    def count_tokens(self, messages: Sequence[Message], media: Sequence[Artefact]) -> int:
        """Return the number of tokens of the prompt for the next message.

        Args:
            messages: Messages in order.
            media: All media of the conversation, those that messages do not show included.
        """
        ...
