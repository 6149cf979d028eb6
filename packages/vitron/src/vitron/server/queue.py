# SPDX-License-Identifier: Apache-2.0
"""The queue in front of the model: how many requests are admitted, and how many generate at a time."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, cast

from anyio import CancelScope, CapacityLimiter, to_thread

from vitron.server.errors import ApiError
from vitron.server.limits import Limits
from vitron.session import Event, MessageEvent


class Watch:
    """Ends a message whose client has disconnected, or that takes too long.

    Attributes:
        gone: Flag that the client has disconnected.
    """

    def __init__(self) -> None:
        self.gone = threading.Event()
        self._seconds = self._deadline = math.inf

    def start(self, seconds: float) -> None:
        """Begin to count the time."""
        self._seconds, self._deadline = seconds, time.monotonic() + seconds

    def check(self) -> None:
        """Check both.

        Raises:
            ApiError: If the message has to end.
        """
        if self.gone.is_set():
            raise ApiError(499, "the client disconnected", "client_gone")
        if time.monotonic() > self._deadline:
            raise ApiError(504, f"the message took more than {self._seconds:g} s", "reply_timeout")


class RequestQueue:
    """Admits requests, and lets a few of them generate at a time, in the order in which they came.

    Args:
        limits: Number of requests and of generations.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._admitted = 0
        self._slots = asyncio.Semaphore(limits.generations)
        self._threads = CapacityLimiter(limits.requests)

    @contextmanager
    def admit(self) -> Generator[None]:
        """Count a request as running until the end of the block.

        Raises:
            ApiError: If there are too many.
        """
        if self._admitted >= self._limits.requests:
            raise ApiError(429, "too many requests at a time: try again later", "too_many_requests")
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def stream(self, events: Iterator[Event], watch: Watch) -> AsyncGenerator[Event]:
        """Generate a message and yield its events, except :class:`MessageEvent`.

        The slot is held while tokens are generated, and free while specialists run.

        Args:
            events: What ``Conversation.generate`` returns, with ``watch.check`` as its check.
            watch: Reasons to end the message at the next chunk.

        Raises:
            ApiError: If generating takes too long.
        """
        with ExitStack() as slot:
            await self._slots.acquire()
            slot.callback(self._slots.release)
            watch.start(self._limits.reply_seconds)
            try:
                # a thread per step and no queue: the next token waits until this one is sent
                while event := await to_thread.run_sync(next, events, None, limiter=self._threads):
                    if isinstance(event, MessageEvent):
                        slot.close()
                    else:
                        yield event
            finally:
                watch.gone.set()
                # a thread that is still inside the generator ends it by itself, at its next check
                with CancelScope(shield=True), suppress(ValueError):
                    await to_thread.run_sync(cast("Any", events).close, limiter=self._threads)
