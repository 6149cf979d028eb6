# SPDX-License-Identifier: Apache-2.0
"""Turns messages of clients into a talk. Nothing is fetched, and no path of a client is opened."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence

import numpy as np

from vitron.errors import MediaError
from vitron.protocol import from_message
from vitron.protocol.contract import Region, Turn
from vitron.protocol.media import Artefact, decode_media
from vitron.protocol.messages import text_message
from vitron.server.errors import ApiError
from vitron.server.limits import Limits
from vitron.server.wire import ChatMessage, Content, MediaSource, RegionContent, TextContent
from vitron.session.chat import Session

_DATA = re.compile(r"data:[a-z0-9.+-]*/?[a-z0-9.+-]*(?:;[a-z0-9=.+-]+)*;base64,", re.IGNORECASE)


class Intake:
    """Reads the media and the messages of one request.

    Args:
        limits: What is too much.
        files: Contents of all files by their keys.
    """

    def __init__(self, limits: Limits, files: Mapping[str, bytes]) -> None:
        self.limits = limits
        self._files = files

    def decode(self, content: bytes, name: str) -> Artefact:
        """Read a picture or a clip.

        Raises:
            MediaError: If it is none, or too large.
        """
        limits = self.limits
        return decode_media(content, name=name, max_pixels=limits.pixels, max_frames=limits.frames)

    def media(self, source: MediaSource, name: str = "the picture") -> Artefact:
        """Read what a source names.

        Raises:
            ApiError: If it is neither a ``data:`` URL nor the key of a file.
            MediaError: If it cannot be read.
        """
        where = source.file_id or source.url or ""
        if where in self._files:
            return self.decode(self._files[where], name)
        if source.file_id is not None or where.startswith("file-"):
            raise ApiError(404, f"there is no file {where[:80]!r}", "file_not_found")
        head = _DATA.match(where[:200])
        if head is None:
            raise ApiError(
                400,
                f"{name} must be a data: URL in base64 or the key of a file, nothing is fetched: got "
                f"{where[:40]!r}",
                "bad_url",
            )
        try:
            content = base64.b64decode(where[head.end() :], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ApiError(400, f"{name} is not in base64: {error}", "bad_url") from error
        return self.decode(content, name)

    def replay(self, session: Session, messages: Sequence[ChatMessage]) -> None:
        """Say everything that was said; the calls of earlier replies are not carried out again.

        Raises:
            ApiError: If the order is wrong, there is too much, or the last word is not the user's.
            MediaError: If a picture cannot be read.
            RegionError: If a region lies on nothing.
        """
        self._measure(messages)
        if messages[-1].role != "user":
            raise ApiError(400, "the last message must be the user's", "bad_messages", "messages")
        for place, message in enumerate(messages):
            match message.role:
                case "user":
                    self._say(session, message)
                case "assistant":
                    self._recall(session, message, messages[place + 1 :])
                case "tool":
                    if not any(other.role == "assistant" for other in messages[:place]):
                        raise ApiError(400, "a tool's message follows a reply", "bad_messages", "messages")
                case _:
                    if session.messages:
                        raise ApiError(400, "a system message comes first", "bad_messages", "messages")
                    session.messages.append(text_message("system", _words(message)))

    def _measure(self, messages: Sequence[ChatMessage]) -> None:
        if len(messages) > self.limits.messages:
            raise ApiError(
                400, f"a request has at most {self.limits.messages} messages", "too_long", "messages"
            )
        if sum(len(_words(message)) for message in messages) > self.limits.characters:
            raise ApiError(
                400, f"a request has at most {self.limits.characters} characters", "too_long", "messages"
            )

    def _say(self, session: Session, message: ChatMessage) -> None:
        media, regions = list[Artefact](), list[Region]()
        for part in message.content:
            if isinstance(part, RegionContent):
                regions.append(part.region)
            elif not isinstance(part, TextContent):
                media.append(self._part(part))
        if len(session.media) + len(media) > self.limits.media:
            raise ApiError(400, f"a conversation has at most {self.limits.media} media", "too_many_media")
        words = _words(message)
        if not words.strip() and not media and not regions:
            raise ApiError(400, "a message of the user says something", "bad_messages", "messages")
        session.say(words, media=media, regions=regions)

    def _part(self, part: Content) -> Artefact:
        match part.type:
            case "image_url":
                return self._of_kind(self.media(part.image_url, "the picture"), "image")
            case "video":
                return self._of_kind(self.media(part.video, "the clip"), "video")
            case "video_url":
                return self._of_kind(self.media(part.video_url, "the clip"), "video")
            case "file":
                return self.media(part.file, "the file")
            case _:
                raise MediaError("this part holds no picture")

    def _of_kind(self, artefact: Artefact, kind: str) -> Artefact:
        if kind == "image" and artefact.kind == "video":
            raise MediaError(f"the picture has {artefact.num_frames} frames: send it as a part 'video'")
        if kind == "video" and artefact.kind == "image":
            # a clip of one frame is a clip
            return Artefact("video", artefact.frames)
        return artefact

    def _recall(self, session: Session, message: ChatMessage, later: Sequence[ChatMessage]) -> None:
        """Take a reply with its calls; what they made may come in the messages of tools behind it."""
        calls = message.tool_calls or []
        modules = session.conversation.modules
        turn = from_message({"content": None, "tool_calls": calls}, modules=modules)
        if turn.issues:
            raise ApiError(400, turn.issues[0].message, "bad_messages", "messages")
        made = list[Artefact]()
        for entry, call in zip(calls, turn.invocations, strict=False):
            found = [
                part
                for other in _until_reply(later)
                if other.role == "tool" and other.tool_call_id == entry.get("id")
                for part in other.content
                if not isinstance(part, TextContent | RegionContent)
            ]
            is_mask = modules[call.module].output == "masks"
            made += [_as_masks(self._part(part)) if is_mask else self._part(part) for part in found[:1]]
        if len(session.media) + len(made) > self.limits.media:
            raise ApiError(400, f"a conversation has at most {self.limits.media} media", "too_many_media")
        # its words are words: tags in them are none
        session.recall(Turn(text=_words(message), invocations=turn.invocations), made)


def _until_reply(messages: Sequence[ChatMessage]) -> Sequence[ChatMessage]:
    for place, message in enumerate(messages):
        if message.role == "assistant":
            return messages[:place]
    return messages


def newest(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return what comes behind the last reply; with a kept conversation only this is new."""
    replies = [place for place, message in enumerate(messages) if message.role == "assistant"]
    start = replies[-1] + 1 if replies else 0
    return [message for message in messages[start:] if message.role == "user"]


def _words(message: ChatMessage) -> str:
    return "\n".join(part.text for part in message.content if isinstance(part, TextContent))


def _as_masks(artefact: Artefact) -> Artefact:
    """White on black becomes one mask."""
    if artefact.kind == "masks":
        return artefact
    mask = artefact.frames.mean(axis=-1) > 127
    return Artefact("masks", np.asarray(mask[None], dtype=np.bool_), ("mask",))
