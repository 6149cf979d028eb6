# SPDX-License-Identifier: Apache-2.0
"""Parses the messages of a request. Nothing is fetched, and no path of a client is opened."""

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
from vitron.server.schemas import ChatMessage, Content, MediaSource, RegionContent, TextContent
from vitron.session import Conversation

_DATA = re.compile(r"data:[a-z0-9.+-]*/?[a-z0-9.+-]*(?:;[a-z0-9=.+-]+)*;base64,", re.IGNORECASE)


class MessageParser:
    """Parses the media and the messages of one request.

    Args:
        limits: Limits of requests.
        files: Contents of all files by their keys.
    """

    def __init__(self, limits: Limits, files: Mapping[str, bytes]) -> None:
        self.limits = limits
        self._files = files

    def decode(self, content: bytes, name: str) -> Artefact:
        """Decode an image or a video.

        Raises:
            MediaError: If it is not an image or a video, or too large.
        """
        limits = self.limits
        return decode_media(content, name=name, max_pixels=limits.pixels, max_frames=limits.frames)

    def media(self, source: MediaSource, name: str = "the image") -> Artefact:
        """Decode the media of a source.

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
            rule = f"{name} must be a data: URL in base64 or the key of a file, nothing is fetched"
            raise ApiError(400, f"{rule}: got {where[:40]!r}", "bad_url")
        try:
            content = base64.b64decode(where[head.end() :], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ApiError(400, f"{name} is not in base64: {error}", "bad_url") from error
        return self.decode(content, name)

    def add_messages(self, conversation: Conversation, messages: Sequence[ChatMessage]) -> None:
        """Add messages to a conversation; the calls of earlier assistant messages do not run again.

        Raises:
            ApiError: If the order is wrong, a limit is exceeded, or the last message is not the user's.
            MediaError: If an image cannot be read.
            RegionError: If there is no image for a region.
        """
        self._measure(messages)
        if messages[-1].role != "user":
            raise ApiError(400, "the last message must be the user's", "bad_messages", "messages")
        for place, message in enumerate(messages):
            match message.role:
                case "user":
                    self._add_user_message(conversation, message)
                case "assistant":
                    self._add_assistant_message(conversation, message, messages[place + 1 :])
                case "tool":
                    if not any(other.role == "assistant" for other in messages[:place]):
                        raise ApiError(
                            400, "a tool message follows an assistant message", "bad_messages", "messages"
                        )
                case _:
                    if conversation.messages:
                        raise ApiError(400, "a system message comes first", "bad_messages", "messages")
                    conversation.messages.append(text_message("system", _text(message)))

    def _measure(self, messages: Sequence[ChatMessage]) -> None:
        if len(messages) > self.limits.messages:
            raise ApiError(
                400, f"a request has at most {self.limits.messages} messages", "too_long", "messages"
            )
        if sum(len(_text(message)) for message in messages) > self.limits.characters:
            raise ApiError(
                400, f"a request has at most {self.limits.characters} characters", "too_long", "messages"
            )

    def _add_user_message(self, conversation: Conversation, message: ChatMessage) -> None:
        media, regions = list[Artefact](), list[Region]()
        for part in message.content:
            if isinstance(part, RegionContent):
                regions.append(part.region)
            elif not isinstance(part, TextContent):
                media.append(self._part(part))
        self._check_media(conversation, media)
        text = _text(message)
        if not text.strip() and not media and not regions:
            raise ApiError(400, "user message is empty", "bad_messages", "messages")
        conversation.add_user_message(text, media=media, regions=regions)

    def _check_media(self, conversation: Conversation, new: Sequence[Artefact]) -> None:
        if len(conversation.media) + len(new) > self.limits.media:
            raise ApiError(400, f"a conversation has at most {self.limits.media} media", "too_many_media")

    def _part(self, part: Content) -> Artefact:
        match part.type:
            case "image_url":
                return self._of_kind(self.media(part.image_url, "the image"), "image")
            case "video":
                return self._of_kind(self.media(part.video, "the video"), "video")
            case "video_url":
                return self._of_kind(self.media(part.video_url, "the video"), "video")
            case "file":
                return self.media(part.file, "the file")
            case _:
                raise MediaError("this part has no image")

    def _of_kind(self, artefact: Artefact, kind: str) -> Artefact:
        if kind == "image" and artefact.kind == "video":
            raise MediaError(f"the image has {artefact.num_frames} frames: send it as a part 'video'")
        if kind == "video" and artefact.kind == "image":
            # a video of one frame is a video
            return Artefact("video", artefact.frames)
        return artefact

    def _add_assistant_message(
        self, conversation: Conversation, message: ChatMessage, later: Sequence[ChatMessage]
    ) -> None:
        """Add an assistant message with its calls; their results may come in the tool messages behind it."""
        calls = message.tool_calls or []
        modules = conversation.modules
        turn = from_message({"content": None, "tool_calls": calls}, modules=modules)
        if turn.issues:
            raise ApiError(400, turn.issues[0].message, "bad_messages", "messages")
        made = list[Artefact]()
        for entry, call in zip(calls, turn.invocations, strict=False):
            found = [
                part
                for other in _until_assistant(later)
                if other.role == "tool" and other.tool_call_id == entry.get("id")
                for part in other.content
                if not isinstance(part, TextContent | RegionContent)
            ]
            is_mask = modules[call.module].output == "masks"
            made += [_as_masks(self._part(part)) if is_mask else self._part(part) for part in found[:1]]
        self._check_media(conversation, made)
        # its text is plain: tags in it are not calls
        turn = Turn(text=_text(message), invocations=turn.invocations)
        conversation.add_assistant_message(turn, made)


def _until_assistant(messages: Sequence[ChatMessage]) -> Sequence[ChatMessage]:
    for place, message in enumerate(messages):
        if message.role == "assistant":
            return messages[:place]
    return messages


def newest(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return the user messages behind the last assistant message, the new ones of a kept conversation."""
    replies = [place for place, message in enumerate(messages) if message.role == "assistant"]
    start = replies[-1] + 1 if replies else 0
    return [message for message in messages[start:] if message.role == "user"]


def _text(message: ChatMessage) -> str:
    return "\n".join(part.text for part in message.content if isinstance(part, TextContent))


def _as_masks(artefact: Artefact) -> Artefact:
    """Return a white on black image as one mask."""
    if artefact.kind == "masks":
        return artefact
    mask = artefact.frames.mean(axis=-1) > 127
    return Artefact("masks", np.asarray(mask[None], dtype=np.bool_), ("mask",))
