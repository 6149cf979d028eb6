# SPDX-License-Identifier: Apache-2.0
"""The requests as clients send them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from vitron.protocol.contract import Region

Zero = Annotated[float, Field(ge=0, le=0)]
Seed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]


class Wire(BaseModel):
    """Fields that are not named change nothing, as ``user``; those that would are refused by their types."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class MediaSource(Wire):
    """Where a picture or a clip is.

    Attributes:
        url: A ``data:`` URL, or the key of a file; nothing is fetched.
        file_id: The key of a file.
    """

    url: str | None = None
    file_id: str | None = None


def _as_source(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


def _as_parts(value: object) -> object:
    if value is None:
        return []
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


# one shape for all spellings, so that an error names the field and not the spelling
Source = Annotated[MediaSource, BeforeValidator(_as_source)]


class TextContent(Wire):
    """Words."""

    type: Literal["text"]
    text: str


class ImageContent(Wire):
    """A picture."""

    type: Literal["image_url"]
    image_url: Source


class VideoContent(Wire):
    """A clip."""

    type: Literal["video"]
    video: Source


class VideoUrlContent(Wire):
    """A clip, as other servers spell it."""

    type: Literal["video_url"]
    video_url: Source


class FileContent(Wire):
    """A file that was brought before."""

    type: Literal["file"]
    file: MediaSource


class RegionContent(Wire):
    """A place on the latest picture or clip."""

    type: Literal["region"]
    region: Region


Content = Annotated[
    TextContent | ImageContent | VideoContent | VideoUrlContent | FileContent | RegionContent,
    Field(discriminator="type"),
]


class ChatMessage(Wire):
    """A message of the history."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[list[Content], BeforeValidator(_as_parts)] = []
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class StreamOptions(Wire):
    """What a stream brings besides."""

    include_usage: bool = False


class ResponseFormat(Wire):
    """Only plain text."""

    type: Literal["text"]


class Extension(Wire):
    """What this server knows beyond OpenAI's interface.

    Attributes:
        conversation: Key of a conversation to go on with; of ``messages`` only those behind the last reply
            count then.
    """

    conversation: str | None = None


class ChatRequest(Wire):
    """``POST /v1/chat/completions``."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Seed | None = None
    n: Literal[1] | None = None
    stop: None = None
    logprobs: Literal[False] | None = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    response_format: ResponseFormat | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto"] | None = None
    vitron: Extension | None = None


class ImageRequest(Wire):
    """``POST /v1/images/generations``."""

    prompt: Annotated[str, Field(min_length=1)]
    model: str | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    size: Annotated[str, Field(pattern=r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$")] | None = None
    response_format: Literal["b64_json"] | None = None
    output_format: Literal["png"] | None = None
    stream: Literal[False] | None = None
    seed: Annotated[int, Field(ge=0, lt=10**9)] | None = None


class SegmentRequest(Wire):
    """``POST /v1/segment``: words, a region, or both, on a picture or a clip.

    The path is ours, so no client has fields of its own to send: a misspelt one would mark everything.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    image: Source | None = None
    video: Source | None = None
    prompt: str = ""
    region: Region | None = None
    frames: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] | None = None
    seed: Annotated[int, Field(ge=0, lt=10**9)] | None = None
