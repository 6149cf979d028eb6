# SPDX-License-Identifier: Apache-2.0
"""The application: routes, middleware and state."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Request

from vitron.protocol.messages import MessageGenerator
from vitron.server import chat, files, images
from vitron.server.errors import install_handlers
from vitron.server.limits import Limits
from vitron.server.middleware import AuthMiddleware
from vitron.server.queue import RequestQueue
from vitron.server.state import ServerState, state_of
from vitron.server.store import ConversationStore, FileStore
from vitron.specialists.registry import SpecialistRegistry

router = APIRouter()


@router.get("/healthz")
async def health(request: Request) -> dict[str, Any]:
    """Report that the server runs; needs no key."""
    return {"status": "ok", "model": state_of(request).model}


def _model(state: ServerState) -> dict[str, Any]:
    return {"id": state.model, "object": "model", "created": state.created, "owned_by": "vitron"}


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """List the one model of the server."""
    return {"object": "list", "data": [_model(state_of(request))]}


@router.get("/v1/models/{name:path}")
async def model(name: str, request: Request) -> dict[str, Any]:
    """Describe the model."""
    state_of(request).check_model(name)
    return _model(state_of(request))


def create_app(
    generator: MessageGenerator,
    *,
    model: str = "vitron",
    specialists: SpecialistRegistry | None = None,
    limits: Limits | None = None,
    api_key: str | None = None,
    hosts: Collection[str] | None = None,
) -> FastAPI:
    """Return a server of one model.

    Conversations share the model and the specialists, and nothing else. Files belong to whoever has the API
    key: one server, one owner.

    Args:
        generator: Generator of assistant messages; called from one thread at a time unless ``limits`` allow
            more generations. If it is a :class:`vitron.protocol.messages.TokenCounter`, usage has prompt
            tokens; else they are 0.
        model: Name of the model for clients.
        specialists: Specialists that run calls; by default all that are installed.
        limits: Limits of requests.
        api_key: Key that clients must send; ``None`` admits everybody.
        hosts: Host names under which the server may be called; ``None`` admits any.

    Raises:
        ValueError: If the API key is empty.
    """
    if api_key is not None and not api_key.strip():
        raise ValueError("the API key is empty: set one, or none at all")
    limits = limits or Limits()
    app = FastAPI(title="vitron", version=version("vitron"), docs_url=None, redoc_url=None)
    app.state.vitron = ServerState(
        generator=generator,
        model=model,
        specialists=SpecialistRegistry().discover() if specialists is None else specialists,
        limits=limits,
        conversations=ConversationStore(limits),
        files=FileStore(limits),
        queue=RequestQueue(limits),
    )
    for each in (router, chat.router, images.router, files.router):
        app.include_router(each)
    install_handlers(app)
    app.add_middleware(AuthMiddleware, api_key=api_key, hosts=hosts, body_bytes=limits.body_bytes)
    return app
