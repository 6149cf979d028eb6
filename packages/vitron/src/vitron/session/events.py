# SPDX-License-Identifier: Apache-2.0
"""Events during the generation of an assistant message, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vitron.protocol.contract import Invocation, Issue, Turn
from vitron.session.calls import CallResult

__all__ = [
    "CallEvent",
    "DoneEvent",
    "Event",
    "IssueEvent",
    "MessageEvent",
    "ResultEvent",
    "RetryEvent",
    "TextEvent",
]


@dataclass(frozen=True, slots=True)
class TextEvent:
    """Text to show."""

    text: str


@dataclass(frozen=True, slots=True)
class CallEvent:
    """A call of the message; it runs when the message is complete."""

    invocation: Invocation


@dataclass(frozen=True, slots=True)
class IssueEvent:
    """An issue: turns that are left out, or what is wrong with the message."""

    issue: Issue


@dataclass(frozen=True, slots=True)
class RetryEvent:
    """The message has malformed calls and is generated once again: the text so far is void."""


@dataclass(frozen=True, slots=True)
class MessageEvent:
    """The message is complete and kept; its calls run next."""

    turn: Turn


@dataclass(frozen=True, slots=True, eq=False)
class ResultEvent:
    """The result of a call."""

    result: CallResult


@dataclass(frozen=True, slots=True)
class DoneEvent:
    """The end of the message and of its calls.

    Attributes:
        turn: The whole message.
        prompt_tokens: Number of tokens of the conversation before; 0 if the model does not count them.
        completion_tokens: Number of generated tokens, those of a first attempt included.
        issues: All issues, those of a first attempt included.
        finish: ``stop``, or ``length`` if ``max_new_tokens`` cut the message off.
    """

    turn: Turn
    prompt_tokens: int
    completion_tokens: int
    issues: tuple[Issue, ...] = ()
    finish: Literal["stop", "length"] = "stop"


Event = TextEvent | CallEvent | IssueEvent | RetryEvent | MessageEvent | ResultEvent | DoneEvent
