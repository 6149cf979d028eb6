# SPDX-License-Identifier: Apache-2.0
"""What one client, and all of them together, may ask of a server."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a server; all are above 0.

    Attributes:
        body_bytes: Of one request.
        pixels: Of one picture, or of all frames of one clip.
        frames: Of one clip.
        messages: In one request.
        characters: Of all words of one request.
        media: Pictures, clips and masks in one conversation.
        images: That one request for pictures may ask for.
        conversations: Kept at a time; the one used longest ago is forgotten first.
        conversation_seconds: After which an unused conversation is forgotten.
        state_bytes: Of the media of all conversations together.
        files: Kept at a time.
        files_bytes: Of all files together.
        generations: Replies that are written at a time; more wait in line.
        requests: At work or waiting at a time; more are refused.
        max_new_tokens: Of one reply, and what a reply gets that asks for no number.
        reply_seconds: For the words of one reply.
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
