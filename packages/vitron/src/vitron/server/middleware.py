# SPDX-License-Identifier: Apache-2.0
"""Checks before a request is read: API key, host name and size of the body."""

from __future__ import annotations

import hmac
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitron.server.errors import error_body, error_response

OPEN = ("/healthz",)


class AuthMiddleware:
    """Refuses wrong keys, foreign host names and bodies that are too large.

    Args:
        app: Application behind the middleware.
        api_key: Key that ``Authorization: Bearer`` must have; ``None`` needs none.
        hosts: Host names under which the server may be called, so that no web page can reach it through a
            name of its own; ``None`` admits any.
        body_bytes: Largest request body.
    """

    def __init__(
        self, app: ASGIApp, *, api_key: str | None, hosts: Collection[str] | None, body_bytes: int
    ) -> None:
        self.app = app
        self.api_key = None if api_key is None else api_key.encode()
        self.hosts = None if hosts is None else {host.lower() for host in hosts}
        self.body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(Headers(scope=scope), scope["path"])
        if refusal is not None:
            status, message, code = refusal
            headers = {"www-authenticate": "Bearer"} if status == 401 else {}
            await JSONResponse(error_body(status, message, code), status, headers)(scope, receive, send)
            return
        has_begun = False

        async def begin(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, self._counted(receive), begin)
        except Exception as error:  # refused here, so that the connection stays open
            if has_begun:
                raise
            status, body = error_response(error)
            await JSONResponse(body, status)(scope, receive, send)

    def _refusal(self, headers: Headers, path: str) -> tuple[int, str, str] | None:
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self.hosts is not None and name.lower() not in self.hosts:
            return 403, f"this server is not called {name[:80]!r}", "wrong_host"
        if self.api_key is not None and path not in OPEN:
            scheme, _, key = headers.get("authorization", "").partition(" ")
            # the comparison takes constant time
            if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), self.api_key):
                return 401, "the API key is missing or wrong", "invalid_api_key"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self.body_bytes:
            return 413, self._too_large, "too_large"
        return None

    @property
    def _too_large(self) -> str:
        return f"a request has at most {self.body_bytes} bytes"

    def _counted(self, receive: Receive) -> Receive:
        """Count the bytes of a body that comes in pieces and without a length."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.body_bytes:
                raise HTTPException(413, self._too_large)
            return message

        return counted
