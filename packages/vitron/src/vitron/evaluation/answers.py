# SPDX-License-Identifier: Apache-2.0
"""Answers of a model to samples: the parsed message and the results of its calls."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitron.data.converters.common import field, items_of
from vitron.data.example import Example
from vitron.errors import DataError
from vitron.protocol.contract import Issue, MediaKind, Turn
from vitron.protocol.media import Artefact
from vitron.protocol.messages import Message, MessageChunk, MessageGenerator, PlacedRegion
from vitron.protocol.sampling import SamplingParams
from vitron.session import CallResult, Conversation
from vitron.session.events import IssueEvent, MessageEvent, ResultEvent
from vitron.specialists.registry import SpecialistRegistry

__all__ = ["Answer", "ScriptedGenerator", "generate_answer", "read_replies"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """Answer to the last user message of a conversation.

    Attributes:
        turn: Parsed assistant message, with the issues of a first attempt.
        results: Results of its calls.
        seconds: Time until the last result.
    """

    turn: Turn
    results: tuple[CallResult, ...] = ()
    seconds: float = 0.0

    def artefact(self, kind: MediaKind) -> Artefact | None:
        """Return the first result of a kind."""
        artefacts = (result.artefact for result in self.results)
        return next((each for each in artefacts if each is not None and each.kind == kind), None)


class ScriptedGenerator:
    """Generates given messages, one after the other, and the last one again and again."""

    def __init__(self, replies: Sequence[str]) -> None:
        self._replies = list(replies)

    def stream(
        self,
        messages: Sequence[Message],
        media: Sequence[Artefact],
        regions: Sequence[PlacedRegion],
        sampling: SamplingParams,
    ) -> Iterator[MessageChunk]:
        """Yield the next message in one chunk; see :class:`vitron.protocol.messages.MessageGenerator`."""
        yield MessageChunk(self._replies.pop(0) if len(self._replies) > 1 else self._replies[0])


def generate_answer(
    model: MessageGenerator,
    example: Example,
    specialists: SpecialistRegistry,
    sampling: SamplingParams | None = None,
) -> Answer:
    """Generate the assistant message of a conversation and run its calls, as a user would see it.

    Args:
        model: Model; its input is all messages, without a final assistant message.
        example: Conversation.
        specialists: Specialists that run the calls.
        sampling: Sampling parameters; greedy by default.

    Raises:
        ContextLengthError: If the last user message is longer than the context of the model.
        DataError: If the conversation does not end with a user message.
    """
    messages = list(example.messages)
    if messages[-1].role == "assistant":
        messages.pop()
    if not messages or messages[-1].role != "user":
        raise DataError("the conversation must end with a user message, or an assistant message behind one")
    conversation = Conversation(model, specialists=specialists)
    conversation.load(messages, example.media, example.regions)
    turn, issues, results, start = Turn(), list[Issue](), list[CallResult](), time.perf_counter()
    for event in conversation.generate(sampling):
        match event:
            case IssueEvent(issue) if issue.code != "shortened":
                issues.append(issue)
            case MessageEvent(turn):
                pass
            case ResultEvent(result):
                results.append(result)
            case _:
                pass
    turn = turn.model_copy(update={"issues": tuple(issues)})
    return Answer(turn=turn, results=tuple(results), seconds=time.perf_counter() - start)


def read_replies(file: Path) -> Mapping[str, str]:
    """Return assistant messages by the ids of their samples, from lines of ``{"id": ..., "reply": ...}``.

    Raises:
        DataError: If the file has another format.
    """
    import json

    if not file.is_file():
        raise DataError(f"{file} does not exist")
    try:
        lines = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]
    except ValueError as error:
        raise DataError(f"{file} must hold one JSON object per line") from error
    return {
        str(field(each, "id", str, file.name)): str(field(each, "reply", str, file.name))
        for each in items_of(lines, file.name)
    }
