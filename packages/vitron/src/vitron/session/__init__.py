# SPDX-License-Identifier: Apache-2.0
"""Conversations between one user and one model."""

from vitron.session.calls import CallResult, PlannedCall
from vitron.session.conversation import Conversation
from vitron.session.events import (
    CallEvent,
    DoneEvent,
    Event,
    IssueEvent,
    MessageEvent,
    ResultEvent,
    TextEvent,
)

__all__ = [
    "CallEvent",
    "CallResult",
    "Conversation",
    "DoneEvent",
    "Event",
    "IssueEvent",
    "MessageEvent",
    "PlannedCall",
    "ResultEvent",
    "TextEvent",
]
