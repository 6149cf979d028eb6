# SPDX-License-Identifier: Apache-2.0
"""Responses that end when the client disconnects."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable
from contextlib import AsyncExitStack
from typing import TypeVar

import anyio
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from vitron.server.errors import ApiError

T = TypeVar("T")


async def _cancel_when_gone(receive: Receive, gone: threading.Event, scope: anyio.CancelScope) -> None:
    """Set the flag and cancel when the client disconnects; its request must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()
    scope.cancel()


async def until_gone(request: Request, work: Awaitable[T], gone: threading.Event) -> T:
    """Wait for work until the client disconnects.

    Args:
        request: The request, already read.
        work: Work to wait for.
        gone: Flag to set when the client disconnects.

    Raises:
        ApiError: If the client disconnected.
    """
    found, failed = list[T](), list[Exception]()
    async with anyio.create_task_group() as group:
        group.start_soon(_cancel_when_gone, request.receive, gone, group.cancel_scope)
        try:
            found.append(await work)
        except Exception as error:  # raised below: a group would wrap it
            failed.append(error)
        group.cancel_scope.cancel()
    if failed:
        raise failed[0]
    if not found:
        raise ApiError(499, "the client disconnected", "client_gone")
    return found[0]


class EventStream(StreamingResponse):
    """Server-sent events that end when the client disconnects.

    Args:
        content: The events.
        stack: Context to close at the end, also after an error.
        headers: Further headers.
        gone: Flag to set when the client disconnects.
    """

    def __init__(
        self,
        content: AsyncIterable[bytes],
        stack: AsyncExitStack,
        headers: dict[str, str],
        gone: threading.Event,
    ) -> None:
        headers = {"cache-control": "no-store"} | headers
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._content = content
        self._stack = stack
        self._gone = gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        async with self._stack, anyio.create_task_group() as group:
            group.start_soon(_cancel_when_gone, receive, self._gone, group.cancel_scope)
            try:
                await self.stream_response(send)
            finally:
                if isinstance(self._content, AsyncGenerator):
                    await self._content.aclose()
            group.cancel_scope.cancel()
