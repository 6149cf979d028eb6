# SPDX-License-Identifier: Apache-2.0
"""Limits of a server."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a server; all are above 0.

    Attributes:
        body_bytes: Largest request body, in bytes.
        pixels: Largest image, or all frames of a video together, in pixels.
        frames: Most frames of a video.
        messages: Most messages of a request.
        characters: Most characters of all messages of a request.
        media: Most images, videos and masks of a conversation.
        images: Most images that one request may ask for.
        conversations: Most conversations kept; the one used longest ago is deleted first.
        conversation_seconds: Seconds after which an unused conversation is deleted.
        state_bytes: Most bytes of the media of all kept conversations.
        files: Most files kept.
        files_bytes: Most bytes of all files.
        generations: Most messages generated at a time; further requests wait.
        requests: Most requests running or waiting; further requests are refused.
        max_new_tokens: Most tokens of a message, and the default of a request that names no number.
        reply_seconds: Most seconds for generating one message.
    """

    body_bytes: int = 32 << 20
    pixels: int = 64_000_000
    frames: int = 256
    messages: int = 256
    characters: int = 200_000
    media: int = 64
    images: int = 8
    conversations: int = 256
    conversation_seconds: float = 3600.0
    state_bytes: int = 2 << 30
    files: int = 256
    files_bytes: int = 512 << 20
    generations: int = 1
    requests: int = 64
    max_new_tokens: int = 1024
    reply_seconds: float = 300.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"{field.name} must be above 0, got {getattr(self, field.name)}")
