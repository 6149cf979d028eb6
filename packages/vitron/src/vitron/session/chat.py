# SPDX-License-Identifier: Apache-2.0
"""A talk between one user and one model, as a stream of events: words, calls, and what became of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitron.errors import RegionError
from vitron.protocol import MODULES, ModuleRegistry, StreamParser
from vitron.protocol.contract import Invocation, Issue, ReferenceRegion, Region, Turn
from vitron.protocol.media import Artefact
from vitron.protocol.messages import (
    MediaPart,
    Message,
    MessageGenerator,
    Part,
    PlacedRegion,
    RegionPart,
    SamplingParams,
    TextPart,
)
from vitron.protocol.regions.raster import rasterise
from vitron.session.conversation import Conversation, StepResult
from vitron.specialists.registry import SpecialistRegistry

__all__ = [
    "CallEvent",
    "DoneEvent",
    "Event",
    "IssueEvent",
    "ResultEvent",
    "Session",
    "TextEvent",
]


@dataclass(frozen=True, slots=True)
class TextEvent:
    """Words to show."""

    text: str


@dataclass(frozen=True, slots=True)
class CallEvent:
    """A call that is complete; it is carried out when the reply is."""

    invocation: Invocation


@dataclass(frozen=True, slots=True)
class IssueEvent:
    """Something wrong in the reply."""

    issue: Issue


@dataclass(frozen=True, slots=True, eq=False)
class ResultEvent:
    """What came of a call: an artefact, kept as ``result.step.output``, or an error."""

    result: StepResult


@dataclass(frozen=True, slots=True)
class DoneEvent:
    """The end of a reply.

    Attributes:
        turn: The reply as a whole.
        completion_tokens: Of the reply.
        finish: ``stop``, or ``length`` if it was cut off.
    """

    turn: Turn
    completion_tokens: int
    finish: str = "stop"


Event = TextEvent | CallEvent | IssueEvent | ResultEvent | DoneEvent


class Session:
    """The state of one talk; nothing of it is shared with another.

    Args:
        replier: What writes the replies.
        specialists: Who carries out calls; by default all that are installed.
        modules: What may be called.
    """

    def __init__(
        self,
        replier: MessageGenerator,
        *,
        specialists: SpecialistRegistry | None = None,
        modules: ModuleRegistry = MODULES,
    ) -> None:
        self.replier = replier
        self.conversation = Conversation(specialists, modules=modules)
        self.messages = list[Message]()
        self._media = list[tuple[str, Artefact]]()
        self._regions = list[PlacedRegion]()

    @property
    def media(self) -> Mapping[str, Artefact]:
        """Everything there is, by name: what the user brought, and what specialists made."""
        return self.conversation.media

    def say(
        self, text: str, *, media: Sequence[Artefact] = (), regions: Sequence[Region] = ()
    ) -> tuple[str, ...]:
        """Take the user's next message; media come first, then regions, then words.

        What was last made is shown to the model with it: the user speaks of what is on the table.

        Args:
            text: Words. Tags in them are text: they never become a call.
            media: Pictures and clips that come with it.
            regions: Places on the latest picture or clip of the talk, those of this message included.

        Returns:
            The names that the media got.

        Raises:
            RegionError: If there is no picture, or a region does not fit it. Nothing is kept then.
        """
        known = [*self._media, *((f"new_{number}", each) for number, each in enumerate(media))]
        placed = [self._place(region, known) for region in regions]
        names = tuple(self.conversation.add(each) for each in media)
        start = len(self._media)
        self._media += zip(names, media, strict=True)
        parts: list[Part] = [
            MediaPart(media=number) for number in (*self._unseen(start), *range(start, len(self._media)))
        ]
        for region in placed:
            parts.append(RegionPart(region=len(self._regions)))
            self._regions.append(region)
        if text:
            parts.append(TextPart(text=text))
        self.messages.append(Message(role="user", content=tuple(parts)))
        return names

    def _unseen(self, end: int) -> tuple[int, ...]:
        """Return the latest thing that was made and that the model has not been shown, if there is one."""
        seen = {part.media for message in self.messages for part in message.content if part.type == "media"}
        latest = [number for number in range(end) if self._media[number][1].kind != "masks"]
        return tuple(number for number in latest[-1:] if number not in seen)

    def _place(self, region: Region, known: Sequence[tuple[str, Artefact]]) -> PlacedRegion:
        shown = [number for number, (_, each) in enumerate(known) if each.kind != "masks"]
        if not shown:
            raise RegionError("a region needs a picture or a clip to lie on, and there is none in this talk")
        artefact = known[shown[-1]][1]
        frame = region.frame or 0
        if frame >= artefact.num_frames:
            raise RegionError(f"the clip has {artefact.num_frames} frames, and {frame} is none of them")
        masks = {}
        if isinstance(region, ReferenceRegion):
            masks = {
                name: each.joint_mask(frame) for name, each in self.media.items() if each.kind == "masks"
            }
        mask = rasterise(region, *artefact.size, masks=masks)
        return PlacedRegion(media=shown[-1], mask=mask, frame=frame)

    def reply(self, sampling: SamplingParams | None = None) -> Iterator[Event]:
        """Write a reply to what was said, carry out its calls, and yield what happens as it does.

        The reply is kept when its words are complete; an iterator that is closed before leaves the talk as
        it was after :meth:`say`, one that is closed later keeps what was made by then.

        Yields:
            Words as they come, calls, issues, a result for each call, and at last :class:`DoneEvent`.
        """
        sampling = sampling or SamplingParams()
        parser, tokens = StreamParser(self.conversation.modules), 0
        signals = list[NDArray[np.float32] | None]()
        media = [each for _, each in self._media]
        for piece in self.replier.stream(self.messages, media, self._regions, sampling):
            tokens += piece.tokens
            for event in parser.feed(piece.text):
                yield _event(event)
                if isinstance(event, Invocation):
                    signals.append(None)
            if piece.signal is not None and signals:
                signals[-1] = piece.signal
        turn = parser.close()
        for event in parser.drain():
            yield _event(event)
        self._remember(turn)
        for result in self.conversation.results(turn, seed=sampling.seed, signals=signals):
            if result.artefact is not None:
                self._media.append((result.step.output, result.artefact))
            yield ResultEvent(result)
        finish = "length" if tokens >= sampling.max_new_tokens else "stop"
        yield DoneEvent(turn, tokens, finish)

    def _remember(self, turn: Turn) -> None:
        self.messages.append(
            Message(
                role="assistant",
                content=(TextPart(text=turn.text),) if turn.text else (),
                calls=tuple(call.model_copy(update={"source": None}) for call in turn.invocations),
            )
        )

    def recall(self, turn: Turn, made: Sequence[Artefact] = ()) -> tuple[str, ...]:
        """Take a reply of an earlier time as it is; its calls are not carried out.

        Args:
            turn: The reply.
            made: What its calls made then, in order.

        Returns:
            The names that these have now.
        """
        self._remember(turn)
        names = tuple(self.conversation.add(each) for each in made)
        self._media += zip(names, made, strict=True)
        return names

    def fork(self) -> Session:
        """Return a talk that begins with all that is in this one and goes its own way."""
        other = Session(
            self.replier, specialists=self.conversation.specialists, modules=self.conversation.modules
        )
        other.conversation = self.conversation.fork()
        other.messages = list(self.messages)
        other._media, other._regions = list(self._media), list(self._regions)
        return other


def _event(event: str | Invocation | Issue) -> Event:
    if isinstance(event, str):
        return TextEvent(event)
    return CallEvent(event) if isinstance(event, Invocation) else IssueEvent(event)
