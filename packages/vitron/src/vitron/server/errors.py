# SPDX-License-Identifier: Apache-2.0
"""Errors in OpenAI's format: one sentence, a type, the field and a code."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from vitron.errors import (
    ContextLengthError,
    MediaError,
    MemoryBudgetError,
    PlanError,
    RegionError,
    SpecialistError,
    SpecialistTimeoutError,
    UnsupportedRequestError,
    explain,
)

_LOG = logging.getLogger(__name__)
_LONGEST = 500

# the first match counts: specific ones come first
_KINDS: tuple[tuple[type[Exception], int, str], ...] = (
    (ContextLengthError, 400, "context_length_exceeded"),
    (RegionError, 400, "bad_region"),
    (MediaError, 400, "bad_media"),
    (PlanError, 400, "bad_call"),
    (UnsupportedRequestError, 422, "unsupported_request"),
    (SpecialistTimeoutError, 504, "specialist_timeout"),
    (MemoryBudgetError, 503, "memory_budget"),
    (SpecialistError, 500, "specialist_failed"),
    (ValidationError, 400, "invalid_value"),
)


class ApiError(Exception):
    """A request is refused.

    Args:
        status: HTTP status.
        message: One sentence.
        code: Code for programs.
        param: Field of the request.
    """

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param


def code_of(error: Exception) -> str:
    """Return the code of an error of this package, as ``specialist_timeout``."""
    return next((code for kind, _, code in _KINDS if isinstance(error, kind)), "failed")


def error_body(status: int, message: str, code: str, param: str | None = None) -> dict[str, Any]:
    """Return the body of an error response."""
    kind = {429: "rate_limit_error"}.get(status, "server_error" if status >= 500 else "invalid_request_error")
    short = message if len(message) <= _LONGEST else message[: _LONGEST - 3] + "..."
    return {"error": {"message": short, "type": kind, "param": param, "code": code}}


def error_response(error: Exception) -> tuple[int, dict[str, Any]]:
    """Return status and body for any exception; an unknown one is logged and not described."""
    if isinstance(error, ApiError):
        return error.status, error_body(error.status, str(error), error.code, error.param)
    for kind, status, code in _KINDS:
        if isinstance(error, kind):
            return status, error_body(status, explain(error), code)
    _LOG.error("a request failed", exc_info=error)
    return 500, error_body(500, "the server failed at this request: see its log", "server_failed")


async def _ours(request: Request, error: Exception) -> JSONResponse:
    status, body = error_response(error)
    return JSONResponse(body, status)


async def _http(request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}.get(status, "bad_request")
    message = str(error.detail) if isinstance(error, HTTPException) else "the server failed"
    message = {404: f"there is no {request.url.path[:100]} here"}.get(status, message)
    return JSONResponse(error_body(status, message, code), status)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    if not found:
        return JSONResponse(error_body(400, explain(error), "invalid_value"), 400)
    first = found[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    rule = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        place, rule = "", "the body is not JSON"
    return JSONResponse(
        error_body(400, f"{place}: {rule}" if place else rule, "invalid_value", place or None), 400
    )


def install_handlers(app: FastAPI) -> None:
    """Answer every error of an app in this format."""
    for kind in (ApiError, *(kind for kind, _, _ in _KINDS)):
        app.add_exception_handler(kind, _ours)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
