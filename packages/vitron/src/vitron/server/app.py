# SPDX-License-Identifier: Apache-2.0
"""The application: routes, guard and state."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI, Request

from vitron.protocol.messages import MessageGenerator
from vitron.server import chat, direct, files
from vitron.server.errors import install_handlers
from vitron.server.guard import Guard
from vitron.server.limits import Limits
from vitron.server.state import ServerState, state_of
from vitron.server.store import ConversationStore, FileStore
from vitron.server.work import Line
from vitron.specialists.registry import SpecialistRegistry

router = APIRouter()


@router.get("/healthz")
async def health(request: Request) -> dict[str, Any]:
    """Tell that the server is there; needs no key, and tells nothing else."""
    return {"status": "ok", "model": state_of(request).model}


def _model(state: ServerState) -> dict[str, Any]:
    return {"id": state.model, "object": "model", "created": state.created, "owned_by": "vitron"}


@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """List the one model that is here."""
    return {"object": "list", "data": [_model(state_of(request))]}


@router.get("/v1/models/{name}")
async def model(name: str, request: Request) -> dict[str, Any]:
    """Tell about the model."""
    state_of(request).check_model(name)
    return _model(state_of(request))


def create_app(
    replier: MessageGenerator,
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
        replier: What writes the replies; from one thread at a time unless ``limits`` allow more. If it has
            ``count_tokens(messages)``, usage tells prompt tokens; else they are 0.
        model: Its name for clients.
        specialists: Who carries out calls; by default all that are installed.
        limits: What clients may ask.
        api_key: What clients must say; ``None`` lets everybody in.
        hosts: Host names under which it may be called; ``None`` takes any.

    Raises:
        ValueError: If the API key is empty.
    """
    if api_key is not None and not api_key.strip():
        raise ValueError("the API key is empty: set one, or none at all")
    limits = limits or Limits()
    app = FastAPI(title="vitron", version=version("vitron"), docs_url=None, redoc_url=None)
    app.state.vitron = ServerState(
        replier=replier,
        model=model,
        specialists=SpecialistRegistry().discover() if specialists is None else specialists,
        limits=limits,
        conversations=ConversationStore(limits),
        files=FileStore(limits),
        line=Line(limits),
    )
    for each in (router, chat.router, direct.router, files.router):
        app.include_router(each)
    install_handlers(app)
    app.add_middleware(Guard, api_key=api_key, hosts=hosts, body_bytes=limits.body_bytes)
    return app
