# SPDX-License-Identifier: Apache-2.0
"""What a model answers to one sample: its reply, read, and what its calls made."""

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
from vitron.protocol.messages import Message, MessageChunk, MessageGenerator, PlacedRegion, SamplingParams
from vitron.session import CallResult, Conversation
from vitron.specialists.registry import SpecialistRegistry

__all__ = ["Answer", "ScriptedReplier", "answer", "read_replies"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """A reply to the last question of a dialogue.

    Attributes:
        turn: The reply.
        results: What became of its calls.
        seconds: From the question to the last result.
    """

    turn: Turn
    results: tuple[CallResult, ...] = ()
    seconds: float = 0.0

    def artefact(self, kind: MediaKind) -> Artefact | None:
        """Return the first thing of a kind that was made."""
        made = (result.artefact for result in self.results)
        return next((each for each in made if each is not None and each.kind == kind), None)


class ScriptedReplier:
    """Gives replies that were written before, one after the other, as a model would."""

    def __init__(self, replies: Sequence[str]) -> None:
        self._replies = iter(replies)

    def stream(
        self,
        messages: Sequence[Message],
        media: Sequence[Artefact],
        regions: Sequence[PlacedRegion],
        sampling: SamplingParams,
    ) -> Iterator[MessageChunk]:
        """Yield the next reply in one piece; see :class:`vitron.protocol.messages.MessageGenerator`."""
        yield MessageChunk(next(self._replies))


def answer(
    replier: MessageGenerator,
    example: Example,
    specialists: SpecialistRegistry,
    sampling: SamplingParams | None = None,
) -> Answer:
    """Have a model answer the last question of a dialogue, and carry out what it calls for.

    Args:
        replier: The model. It is shown all messages but the last, if that is an assistant's.
        example: The dialogue.
        specialists: Who carries out calls.
        sampling: How the reply is drawn; greedy by default.

    Raises:
        DataError: If the dialogue asks nothing.
    """
    messages = list(example.messages)
    if messages[-1].role == "assistant":
        messages.pop()
    if not messages or messages[-1].role != "user":
        raise DataError("a dialogue to be answered must end with a question of the user")
    sampling, start = sampling or SamplingParams(), time.perf_counter()
    conversation = Conversation(specialists=specialists)
    for each in example.media:
        conversation.add_media(each)
    parser, signals = StreamParser(conversation.modules), list[NDArray[np.float32] | None]()
    for piece in replier.stream(messages, example.media, example.regions, sampling):
        signals += [None for event in parser.feed(piece.text) if isinstance(event, Invocation)]
        if piece.signal is not None and signals:
            signals[-1] = piece.signal
    turn = parser.close()
    results = tuple(conversation.run_calls(turn, seed=sampling.seed, signals=signals))
    return Answer(turn=turn, results=results, seconds=time.perf_counter() - start)


def read_replies(file: Path) -> Mapping[str, str]:
    """Return replies by the ids of their samples, from lines of ``{"id": ..., "reply": ...}``.

    Raises:
        DataError: If the file does not hold that.
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
