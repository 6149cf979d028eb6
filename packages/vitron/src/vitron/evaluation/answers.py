# SPDX-License-Identifier: Apache-2.0
"""Answers of a model to samples: the parsed message and the results of its calls."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitron.data.converters.common import field, items_of
from vitron.data.example import Example
from vitron.errors import DataError
from vitron.protocol import StreamParser
from vitron.protocol.contract import Invocation, MediaKind, Turn
from vitron.protocol.media import Artefact
from vitron.protocol.messages import Message, MessageChunk, MessageGenerator, PlacedRegion
from vitron.protocol.sampling import SamplingParams
from vitron.session import CallResult, Conversation
from vitron.specialists.registry import SpecialistRegistry

__all__ = ["Answer", "ScriptedGenerator", "generate_answer", "read_replies"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """Answer to the last user message of a conversation.

    Attributes:
        turn: Parsed assistant message.
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
    """Generates given messages, one after the other."""

    def __init__(self, replies: Sequence[str]) -> None:
        self._replies = iter(replies)

    def stream(
        self,
        messages: Sequence[Message],
        media: Sequence[Artefact],
        regions: Sequence[PlacedRegion],
        sampling: SamplingParams,
    ) -> Iterator[MessageChunk]:
        """Yield the next message in one chunk; see :class:`vitron.protocol.messages.MessageGenerator`."""
        yield MessageChunk(next(self._replies))


def generate_answer(
    model: MessageGenerator,
    example: Example,
    specialists: SpecialistRegistry,
    sampling: SamplingParams | None = None,
) -> Answer:
    """Generate the assistant message of a conversation and run its calls.

    Args:
        model: Model; its input is all messages, without a final assistant message.
        example: Conversation.
        specialists: Specialists that run the calls.
        sampling: Sampling parameters; greedy by default.

    Raises:
        DataError: If the conversation does not end with a user message.
    """
    messages = list(example.messages)
    if messages[-1].role == "assistant":
        messages.pop()
    if not messages or messages[-1].role != "user":
        raise DataError("the conversation must end with a user message, or an assistant message behind one")
    sampling, start = sampling or SamplingParams(), time.perf_counter()
    conversation = Conversation(specialists=specialists)
    for each in example.media:
        conversation.add_media(each)
    parser, signals = StreamParser(conversation.modules), list[NDArray[np.float32] | None]()
    for chunk in model.stream(messages, example.media, example.regions, sampling):
        signals += [None for event in parser.feed(chunk.text) if isinstance(event, Invocation)]
        if chunk.signal is not None and signals:
            signals[-1] = chunk.signal
    turn = parser.close()
    results = tuple(conversation.run_calls(turn, seed=sampling.seed, signals=signals))
    return Answer(turn=turn, results=results, seconds=time.perf_counter() - start)


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
