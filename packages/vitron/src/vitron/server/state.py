# SPDX-License-Identifier: Apache-2.0
"""State that the routes of one server share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import cast

from fastapi import Request

from vitron.protocol import MODULES, ModuleRegistry
from vitron.protocol.messages import MessageGenerator
from vitron.server.errors import ApiError
from vitron.server.limits import Limits
from vitron.server.parsing import MessageParser
from vitron.server.queue import RequestQueue
from vitron.server.store import ConversationStore, FileStore
from vitron.session import Conversation
from vitron.specialists.registry import SpecialistRegistry


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServerState:
    """State of one server.

    Attributes:
        generator: Generator of assistant messages.
        model: Name of the model for clients.
        specialists: Specialists that run calls.
        limits: Limits of requests.
        conversations: Kept conversations.
        files: Kept files.
        queue: Queue in front of the model.
        modules: Modules that may be called.
        created: Start of the server, seconds since 1970.
    """

    generator: MessageGenerator
    model: str
    specialists: SpecialistRegistry
    limits: Limits
    conversations: ConversationStore
    files: FileStore
    queue: RequestQueue
    modules: ModuleRegistry = MODULES
    created: int = field(default_factory=lambda: int(time.time()))

    def parser(self) -> MessageParser:
        """Return a parser of the messages and media of a request."""
        return MessageParser(self.limits, {file.key: file.content for file in self.files.all()})

    def conversation(self) -> Conversation:
        """Start a conversation."""
        return Conversation(self.generator, specialists=self.specialists, modules=self.modules)

    def check_model(self, name: str | None) -> None:
        """Refuse a request for another model.

        Raises:
            ApiError: If another model is named.
        """
        if name is not None and name != self.model:
            message = f"there is no model {name[:80]!r} here, it is {self.model!r}"
            raise ApiError(404, message, "model_not_found", "model")


def state_of(request: Request) -> ServerState:
    """Return the state of the server that got a request."""
    return cast("ServerState", request.app.state.vitron)
