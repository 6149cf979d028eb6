# SPDX-License-Identifier: Apache-2.0
"""The bodies of requests."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from vitron.protocol.contract import Region

Zero = Annotated[float, Field(ge=0, le=0)]
Seed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]


class RequestModel(BaseModel):
    """Base of requests: unknown fields such as ``user`` are ignored, unsupported options refused by type."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class MediaSource(RequestModel):
    """Source of an image or a video.

    Attributes:
        url: ``data:`` URL or key of a file; nothing is fetched.
        file_id: Key of a file.
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


class TextContent(RequestModel):
    """Text."""

    type: Literal["text"]
    text: str


class ImageContent(RequestModel):
    """An image."""

    type: Literal["image_url"]
    image_url: Source


class VideoContent(RequestModel):
    """A video."""

    type: Literal["video"]
    video: Source


class VideoUrlContent(RequestModel):
    """A video, in the spelling of other servers."""

    type: Literal["video_url"]
    video_url: Source


class FileContent(RequestModel):
    """A file that was uploaded before."""

    type: Literal["file"]
    file: MediaSource


class RegionContent(RequestModel):
    """A region on the latest image or video."""

    type: Literal["region"]
    region: Region


Content = Annotated[
    TextContent | ImageContent | VideoContent | VideoUrlContent | FileContent | RegionContent,
    Field(discriminator="type"),
]


class ChatMessage(RequestModel):
    """A message of the history."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[list[Content], BeforeValidator(_as_parts)] = []
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class StreamOptions(RequestModel):
    """Further content of a stream."""

    include_usage: bool = False


class ResponseFormat(RequestModel):
    """Plain text, the only format."""

    type: Literal["text"]


class Extension(RequestModel):
    """Fields beyond OpenAI's interface.

    Attributes:
        conversation: Key of a conversation to continue; only the ``messages`` behind the last assistant
            message are read then.
    """

    conversation: str | None = None


class ChatRequest(RequestModel):
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


class ImageRequest(RequestModel):
    """``POST /v1/images/generations``."""

    prompt: Annotated[str, Field(min_length=1)]
    model: str | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    size: Annotated[str, Field(pattern=r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$")] | None = None
    response_format: Literal["b64_json"] | None = None
    output_format: Literal["png"] | None = None
    stream: Literal[False] | None = None
    seed: Annotated[int, Field(ge=0, lt=10**9)] | None = None


class SegmentRequest(RequestModel):
    """``POST /v1/segment``: a prompt, a region, or both, on an image or a video.

    Unknown fields are refused, as this path is not OpenAI's: a misspelt field would segment everything.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    image: Source | None = None
    video: Source | None = None
    prompt: str = ""
    region: Region | None = None
    frames: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] | None = None
    seed: Annotated[int, Field(ge=0, lt=10**9)] | None = None
