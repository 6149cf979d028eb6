# SPDX-License-Identifier: Apache-2.0
"""Conversations and files of a server, in memory, under keys that cannot be guessed.

Both stores are used from the event loop alone, and so need no lock.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from vitron.server.errors import ApiError
from vitron.server.limits import Limits
from vitron.session import Conversation

Clock = Callable[[], float]


def new_key(prefix: str) -> str:
    """Return a key with 192 random bits."""
    return f"{prefix}{secrets.token_urlsafe(24)}"


@dataclass(slots=True)
class _Kept:
    conversation: Conversation
    used: float
    size: int


class ConversationStore:
    """Conversations by their keys.

    A request gets a fork, which replaces the conversation when the message is complete: a request that fails,
    or whose client disconnects, leaves the conversation as it was.

    Args:
        limits: Number, size and lifetime of conversations.
        clock: Clock in seconds.
    """

    def __init__(self, limits: Limits, *, clock: Clock = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._kept = OrderedDict[str, _Kept]()
        self._busy = set[str]()

    def __len__(self) -> int:
        return len(self._kept)

    def checkout(self, key: str) -> Conversation:
        """Return a fork of a conversation, and lock the conversation until it is released.

        Raises:
            ApiError: If there is none of this key, or it is locked.
        """
        self._delete_old()
        if key in self._busy:
            raise ApiError(409, "this conversation is busy with another message", "conversation_busy")
        if key not in self._kept:
            raise ApiError(
                404,
                "there is no such conversation, or it was deleted: send all messages and no key",
                "conversation_not_found",
            )
        self._busy.add(key)
        return self._kept[key].conversation.fork()

    def save(self, key: str, conversation: Conversation) -> None:
        """Keep a conversation under a key, and delete the oldest if there are too many."""
        size = sum(artefact.data.nbytes for artefact in conversation.media.values())
        self._kept[key] = _Kept(conversation, self._clock(), size)
        self._kept.move_to_end(key)
        self._delete_old()
        while len(self._kept) > self._limits.conversations or (
            len(self._kept) > 1 and sum(kept.size for kept in self._kept.values()) > self._limits.state_bytes
        ):
            self._kept.popitem(last=False)

    def release(self, key: str) -> None:
        """Unlock a conversation."""
        self._busy.discard(key)

    def delete(self, key: str) -> bool:
        """Delete a conversation; return whether there was one."""
        self._delete_old()
        return self._kept.pop(key, None) is not None

    def _delete_old(self) -> None:
        oldest = self._clock() - self._limits.conversation_seconds
        while self._kept and next(iter(self._kept.values())).used < oldest:
            self._kept.popitem(last=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file that a client uploaded.

    Attributes:
        content: Bytes of the file.
        filename: Name that the client gave; only sent back.
        purpose: Purpose that the client gave.
        key: Key of the file.
        created: Time of the upload, seconds since 1970.
    """

    content: bytes
    filename: str
    purpose: str
    key: str = field(default_factory=lambda: new_key("file-"))
    created: int = field(default_factory=lambda: int(time.time()))


class FileStore:
    """Files by their keys; never on disk.

    Args:
        limits: Number and size of files.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._files = dict[str, StoredFile]()

    def add(self, file: StoredFile) -> StoredFile:
        """Keep a file.

        Raises:
            ApiError: If a limit is exceeded.
        """
        held = sum(len(other.content) for other in self._files.values())
        if len(self._files) >= self._limits.files or held + len(file.content) > self._limits.files_bytes:
            raise ApiError(413, "the limit of stored files is reached: delete some", "files_full")
        self._files[file.key] = file
        return file

    def get(self, key: str) -> StoredFile:
        """Return a file.

        Raises:
            ApiError: If there is none of this key.
        """
        if key not in self._files:
            raise ApiError(404, f"there is no file {key[:80]!r}", "file_not_found")
        return self._files[key]

    def delete(self, key: str) -> None:
        """Delete a file.

        Raises:
            ApiError: If there is none of this key.
        """
        self.get(key)
        del self._files[key]

    def all(self) -> list[StoredFile]:
        """Return all files, the newest last."""
        return list(self._files.values())
