# SPDX-License-Identifier: Apache-2.0
"""What the routes of one server share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import cast

from fastapi import Request

from vitron.protocol import MODULES, ModuleRegistry
from vitron.protocol.messages import MessageGenerator
from vitron.server.errors import ApiError
from vitron.server.intake import Intake
from vitron.server.limits import Limits
from vitron.server.store import ConversationStore, FileStore
from vitron.server.work import Line
from vitron.session.chat import Session
from vitron.specialists.registry import SpecialistRegistry


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServerState:
    """One server.

    Attributes:
        replier: What writes the replies.
        model: Its name.
        specialists: Who carries out calls.
        limits: What clients may ask.
        conversations: Those that are kept.
        files: Those that clients brought.
        line: Who may write now.
        modules: What may be called.
        created: When it began, seconds since 1970.
    """

    replier: MessageGenerator
    model: str
    specialists: SpecialistRegistry
    limits: Limits
    conversations: ConversationStore
    files: FileStore
    line: Line
    modules: ModuleRegistry = MODULES
    created: int = field(default_factory=lambda: int(time.time()))

    def intake(self) -> Intake:
        """Return what reads the media of a request."""
        return Intake(self.limits, {file.key: file.content for file in self.files.all()})

    def count_tokens(self, session: Session) -> int:
        """Return how many tokens a talk has so far, or 0 if the replier does not say."""
        count = getattr(self.replier, "count_tokens", None)
        return 0 if count is None else int(count(session.messages))

    def check_model(self, name: str | None) -> None:
        """Refuse another model than the one that is here.

        Raises:
            ApiError: If another is named.
        """
        if name is not None and name != self.model:
            raise ApiError(
                404,
                f"there is no model {name[:80]!r} here, it is {self.model!r}",
                "model_not_found",
                "model",
            )


def state_of(request: Request) -> ServerState:
    """Return the state of the server that got a request."""
    return cast("ServerState", request.app.state.vitron)
