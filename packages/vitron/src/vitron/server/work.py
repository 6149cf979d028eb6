# SPDX-License-Identifier: Apache-2.0
"""Replies in threads of their own, a few at a time, that stop when nobody waits for them any more."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Sequence,
)
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import TypeVar

import anyio
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from vitron.protocol.media import Artefact
from vitron.protocol.messages import Message, MessageChunk, MessageGenerator, PlacedRegion, SamplingParams
from vitron.server.errors import ApiError
from vitron.server.limits import Limits
from vitron.session.chat import Event, Session

T = TypeVar("T")


class _StoppedError(Exception):
    """Nobody waits for this reply any more."""


class Line:
    """Admits requests, and lets those that are admitted write one after the other, in the order they came.

    Args:
        limits: How many at a time.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._inside = 0
        self._writers = asyncio.Semaphore(limits.generations)

    def enter(self) -> None:
        """Admit a request; each that enters must :meth:`leave`.

        Raises:
            ApiError: If too many are inside.
        """
        if self._inside >= self._limits.requests:
            raise ApiError(429, "too many requests at a time: try again later", "too_many_requests")
        self._inside += 1

    def leave(self) -> None:
        """End a request."""
        self._inside -= 1

    @contextmanager
    def inside(self) -> Generator[None]:
        """Enter, and leave at the end."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    async def write(
        self, session: Session, replier: MessageGenerator, sampling: SamplingParams
    ) -> AsyncGenerator[Event]:
        """Write a reply in a thread and yield what happens; closing stops the work at the next piece.

        The place in the line is held while words are written, and is free while specialists are at work.

        Raises:
            ApiError: If the words take too long.
        """
        await self._writers.acquire()
        loop, events = asyncio.get_running_loop(), asyncio.Queue[Event | BaseException | None]()
        writer = _Writer(replier, self._limits.reply_seconds, lambda: _tell(loop, self._writers.release))

        def work() -> None:
            last: BaseException | None = None
            try:
                session.replier = writer
                for event in session.reply(sampling):
                    _tell(loop, events.put_nowait, event)
                    if writer.stopped.is_set():
                        break
            except BaseException as error:  # whatever it is, it is raised where it is waited for
                last = error
            finally:
                session.replier = replier
                writer.leave_line()
                _tell(loop, events.put_nowait, last)

        threading.Thread(target=work, name="vitron-reply", daemon=True).start()
        try:
            while (event := await events.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            writer.stopped.set()


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[..., object], *args: object) -> None:
    with suppress(RuntimeError):  # the server is gone, and all who waited with it
        loop.call_soon_threadsafe(what, *args)


class _Writer:
    """A replier that can be stopped from outside, and takes neither for ever nor too many tokens."""

    def __init__(self, replier: MessageGenerator, seconds: float, leave: Callable[[], None]) -> None:
        self.stopped = threading.Event()
        self._replier = replier
        self._seconds = seconds
        self._leave: Callable[[], None] | None = leave

    def leave_line(self) -> None:
        """Let the next one write; only the first call counts."""
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()

    def stream(
        self,
        messages: Sequence[Message],
        media: Sequence[Artefact],
        regions: Sequence[PlacedRegion],
        sampling: SamplingParams,
    ) -> Iterator[MessageChunk]:
        """Write; see :class:`vitron.protocol.messages.MessageGenerator`."""
        deadline, left = time.monotonic() + self._seconds, sampling.max_new_tokens
        pieces = self._replier.stream(messages, media, regions, sampling)
        try:
            for piece in pieces:
                if self.stopped.is_set():
                    raise _StoppedError
                if time.monotonic() > deadline:
                    raise ApiError(504, f"the reply took more than {self._seconds:g} s", "reply_timeout")
                yield piece
                left -= piece.tokens
                if left <= 0:
                    return
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()
            self.leave_line()


async def _gone(receive: Receive) -> None:
    """Return when the client has gone away; its request must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def until_gone(request: Request, work: Awaitable[T]) -> T:
    """Wait for some work, but no longer than the client does.

    Raises:
        ApiError: If the client went away; nobody will read it.
    """
    found = list[T]()
    failed = list[Exception]()
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            await _gone(request.receive)
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            found.append(await work)
        except Exception as error:  # raised below: a group would wrap it
            failed.append(error)
        group.cancel_scope.cancel()
    if failed:
        raise failed[0]
    if not found:
        raise ApiError(499, "the client went away", "client_gone")
    return found[0]


class EventStream(StreamingResponse):
    """Server-sent events that end when the client goes away.

    Args:
        content: The events.
        stack: Closed at the end, whatever happens.
        headers: Further headers.
    """

    def __init__(self, content: AsyncIterable[bytes], stack: AsyncExitStack, headers: dict[str, str]) -> None:
        super().__init__(
            content, media_type="text/event-stream", headers={"cache-control": "no-store"} | headers
        )
        self._content = content
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all."""
        async with self._stack, anyio.create_task_group() as group:

            async def watch() -> None:
                await _gone(receive)
                group.cancel_scope.cancel()

            group.start_soon(watch)
            try:
                await self.stream_response(send)
            finally:
                if isinstance(self._content, AsyncGenerator):
                    await self._content.aclose()
            group.cancel_scope.cancel()
