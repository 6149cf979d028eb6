# SPDX-License-Identifier: Apache-2.0
"""A conversation: messages, and their media, masks and regions by handle."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vitron.errors import PlanError, RegionError, SpecialistError
from vitron.protocol import MODULES, ModuleRegistry, StreamParser
from vitron.protocol.contract import Invocation, Issue, ReferenceRegion, Region, Turn
from vitron.protocol.media import Artefact
from vitron.protocol.messages import (
    MediaPart,
    Message,
    MessageChunk,
    MessageGenerator,
    Part,
    PlacedRegion,
    RegionPart,
    TextPart,
)
from vitron.protocol.sampling import SamplingParams
from vitron.session.calls import CallResult, PlannedCall, plan_calls
from vitron.session.context import Prompt, fit_context
from vitron.session.events import (
    CallEvent,
    DoneEvent,
    Event,
    IssueEvent,
    MessageEvent,
    ResultEvent,
    RetryEvent,
    TextEvent,
)
from vitron.session.media import ConversationMedia, MediaByHandle
from vitron.specialists.protocol import Action, Request
from vitron.specialists.registry import SpecialistRegistry

__all__ = ["Conversation"]

Signal = NDArray[np.float32]
RETRY_TEMPERATURE = 0.5  # a greedy second attempt would repeat the first


@dataclass(slots=True)
class _Draft:
    """A generated message that is not kept yet.

    Attributes:
        turn: The message.
        signals: Signal embeddings of each call.
        tokens: Number of generated tokens.
    """

    turn: Turn = field(default_factory=Turn)
    signals: list[Signal | None] = field(default_factory=list[Signal | None])
    tokens: int = 0


class Conversation:
    """One exchange of messages between a user and a model, with the user's media and the results.

    Images have the handles ``img_1``, ``img_2``, ..., videos ``vid_1``, masks ``mask_1``, and regions of the
    user ``region_1``; a call says ``input: img_1`` or puts ``mask_1`` between region tags, and else works on
    the latest image or video that its region fits. Regions are fractions, so they stay valid in later turns.
    Conversations share only the specialists.

    Args:
        model: Generator of assistant messages, such as :class:`vitron.Vitron`; not needed to run calls.
        specialists: Specialists that run calls; by default all that are installed.
        modules: Modules that may be called.

    Attributes:
        messages: All messages, in order.

    Example:
        >>> from vitron import Artefact, parse
        >>> from vitron.demo.painters import toy_registry
        >>> conversation = Conversation(specialists=toy_registry())
        >>> turn = parse("<module>A</module><instruction>draw: a red circle</instruction>")
        >>> result = conversation.run_calls(turn)[0]
        >>> result.call.output, result.artefact.data.shape
        ('img_1', (64, 64, 3))
    """

    def __init__(
        self,
        model: MessageGenerator | None = None,
        *,
        specialists: SpecialistRegistry | None = None,
        modules: ModuleRegistry = MODULES,
    ) -> None:
        self.model = model
        self.specialists = SpecialistRegistry().discover() if specialists is None else specialists
        self.modules = modules
        self.messages = list[Message]()
        self._media = ConversationMedia()

    @property
    def media(self) -> Mapping[str, Artefact]:
        """All media by handle, in order: those of the user, and the results of calls that did not fail."""
        return MediaByHandle(self._media.artefacts)

    @property
    def latest(self) -> Artefact | None:
        """The latest image or video; regions of the user lie on it."""
        position = self._media.latest
        return None if position is None else list(self._media.artefacts.values())[position]

    def fork(self) -> Conversation:
        """Return an independent copy of this conversation."""
        other = Conversation(self.model, specialists=self.specialists, modules=self.modules)
        other.messages, other._media = list(self.messages), self._media.copy()
        return other

    # -- messages

    def add_media(self, artefact: Artefact) -> str:
        """Add media of the user.

        Returns:
            Handle of the medium.
        """
        return self._media.add(artefact)

    def add_user_message(
        self, text: str, *, media: Sequence[Artefact] = (), regions: Sequence[Region] = ()
    ) -> tuple[str, ...]:
        """Add a user message; media come first, then regions, then text.

        With it the model is shown the latest image or video and all masks that it has not seen.

        Args:
            text: Text of the message. Tags in it are plain text and never become a call.
            media: Images and videos of the message.
            regions: Regions on the latest image or video, those of this message included.

        Returns:
            The handles of the media.

        Raises:
            PlanError: If a region is a reference that does not fit. Nothing is kept then.
            RegionError: If there is no image, or a region does not fit it. Nothing is kept then.
        """
        placed = self._media.place(regions, media)
        shown, start = self._unseen(), len(self._media.artefacts)
        handles = tuple(self.add_media(each) for each in media)
        parts: list[Part] = [
            MediaPart(media=position) for position in (*shown, *range(start, start + len(handles)))
        ]
        parts += [RegionPart(region=position) for position in placed]
        if text:
            parts.append(TextPart(text=text))
        self.messages.append(Message(role="user", content=tuple(parts)))
        return handles

    def load(
        self, messages: Sequence[Message], media: Sequence[Artefact], regions: Sequence[PlacedRegion]
    ) -> None:
        """Take over a conversation from a data set.

        Args:
            messages: Messages, which refer to media and regions by position.
            media: Media of all messages.
            regions: Regions of all messages.

        Raises:
            ValueError: If this conversation is not empty.
        """
        if self.messages or self._media.artefacts:
            raise ValueError("messages can only be loaded into an empty conversation")
        for each in media:
            self.add_media(each)
        self._media.extend(regions)
        self.messages += messages

    def _unseen(self) -> list[int]:
        """Return the positions of masks, and of the latest image or video, that no message has shown."""
        seen = {part.media for message in self.messages for part in message.content if part.type == "media"}
        latest = self._media.latest
        return [
            position
            for position, kind in enumerate(self._media.kinds.values())
            if (kind == "masks" or position == latest) and position not in seen
        ]

    def add_assistant_message(self, turn: Turn, media: Sequence[Artefact] = ()) -> tuple[str, ...]:
        """Add an earlier assistant message; its calls do not run.

        Args:
            turn: The message.
            media: Results of its calls, in order.

        Returns:
            The handles of the results.
        """
        self.messages.append(
            Message(
                role="assistant",
                content=(TextPart(text=turn.text),) if turn.text else (),
                calls=tuple(call.model_copy(update={"source": None}) for call in turn.invocations),
            )
        )
        return tuple(self.add_media(each) for each in media)

    def generate(
        self, sampling: SamplingParams | None = None, *, check: Callable[[], None] | None = None
    ) -> Iterator[Event]:
        """Generate the assistant message, run its calls, and yield each event as it happens.

        Of a conversation that is longer than the context of the model the oldest turns are left out; see
        :func:`vitron.session.context.fit_context`. The length is checked by the call itself, all else happens
        in the iteration. A message with malformed calls is dropped, and generated once again: with the
        grammar, the next seed and a temperature of at least 0.5.

        An iterator that is closed before :class:`MessageEvent` leaves the conversation as it was; one that is
        closed later keeps the message and the results so far.

        Args:
            sampling: Sampling options.
            check: Function to call after each chunk; an exception from it ends the message.

        Returns:
            The events: an issue if turns are left out; text as it arrives; after the issues of a first
            attempt that failed, :class:`RetryEvent`, then the text of the second; the calls and issues of the
            message, :class:`MessageEvent`, a result for each call, and :class:`DoneEvent`.

        Raises:
            ContextLengthError: If the last user message alone is longer than the context of the model.
            ValueError: If the conversation has no model.
        """
        if self.model is None:
            raise ValueError("this conversation has no model to generate a message: pass one as model=")
        sampling = sampling or SamplingParams()
        return self._generate(fit_context(self.messages, self._media, self.model, sampling), sampling, check)

    def _generate(
        self, prompt: Prompt, sampling: SamplingParams, check: Callable[[], None] | None
    ) -> Generator[Event]:
        issues = [] if prompt.issue is None else [prompt.issue]
        yield from map(IssueEvent, issues)
        draft = yield from self._attempt(prompt, check, is_last=False)
        tokens = draft.tokens
        if draft.turn.issues:
            # the calls that these issues refer to are dropped
            issues += [each.model_copy(update={"invocation": None}) for each in draft.turn.issues]
            yield from map(IssueEvent, draft.turn.issues)
            yield RetryEvent()
            prompt = replace(prompt, sampling=_second(prompt.sampling))
            draft = yield from self._attempt(prompt, check, is_last=True)
            tokens += draft.tokens
        issues += draft.turn.issues
        yield from map(CallEvent, draft.turn.invocations)
        yield from map(IssueEvent, draft.turn.issues)
        self.add_assistant_message(draft.turn)
        yield MessageEvent(draft.turn)
        for result in self.stream_results(draft.turn, seed=sampling.seed, signals=draft.signals):
            yield ResultEvent(result)
        is_cut = draft.tokens >= prompt.sampling.max_new_tokens
        finish = "length" if is_cut else "stop"
        yield DoneEvent(draft.turn, prompt.tokens, tokens, tuple(issues), finish)

    def _attempt(
        self, prompt: Prompt, check: Callable[[], None] | None, *, is_last: bool
    ) -> Generator[Event, None, _Draft]:
        """Generate a message and yield its text; one that is not the last ends at its first issue."""
        parser, draft, last = StreamParser(self.modules), _Draft(), None
        chunks = self._chunks(prompt, check)
        for chunk in chunks:
            draft.tokens += chunk.tokens
            events = parser.feed(chunk.text)
            yield from (TextEvent(each) for each in events if isinstance(each, str))
            for last in (each for each in events if not isinstance(each, str)):
                draft.signals += [None] if isinstance(last, Invocation) else []
            if chunk.signal is not None and isinstance(last, Invocation):  # else of a malformed call
                draft.signals[-1] = chunk.signal
            if not is_last and any(isinstance(each, Issue) for each in events):
                chunks.close()
        draft.turn = parser.close()
        if is_last or not draft.turn.issues:
            yield from (TextEvent(each) for each in parser.drain() if isinstance(each, str))
        return draft

    def _chunks(self, prompt: Prompt, check: Callable[[], None] | None) -> Generator[MessageChunk]:
        """Yield what the model generates, up to ``max_new_tokens`` even if the model does not count."""
        assert self.model is not None
        left, artefacts = prompt.sampling.max_new_tokens, list(self._media.artefacts.values())
        chunks = self.model.stream(prompt.messages, artefacts, self._media.placed, prompt.sampling)
        try:
            for chunk in chunks:
                if check is not None:
                    check()
                yield chunk
                left -= chunk.tokens
                if left <= 0:
                    return
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()

    # -- calls

    def plan(self, turn: Turn) -> list[PlannedCall]:
        """Plan the specialists, the order and the inputs of the calls; nothing is loaded or run.

        Args:
            turn: An assistant message with calls. A call with an issue is planned with its problem and does
                not run.
        """
        return plan_calls(turn, self._media, self.specialists, self.modules)

    def run_calls(
        self, turn: Turn, *, seed: int = 0, signals: Sequence[Signal | None] = ()
    ) -> list[CallResult]:
        """Run the calls of a message, each after its dependencies.

        A call that fails is reported, and so are the calls that need its output; the others run.

        Args:
            turn: An assistant message.
            seed: Random seed of calls that name none.
            signals: Signal embeddings of each call, ``(N, C)``, or ``None``.

        Returns:
            One result for each call, in order.
        """
        return list(self.stream_results(turn, seed=seed, signals=signals))

    def stream_results(
        self, turn: Turn, *, seed: int = 0, signals: Sequence[Signal | None] = ()
    ) -> Iterator[CallResult]:
        """Yield the results of :meth:`run_calls` as soon as they are ready; closing stops the run."""
        results, handles = list[CallResult](), dict[str, str]()
        # outputs are only needed by later calls: the order of the message is an order of the graph
        for planned in self.plan(turn):
            call = _renamed(planned, handles)
            signal = signals[call.index] if call.index < len(signals) else None
            missing = [results[index].call.output for index in call.after if results[index].artefact is None]
            try:
                if call.problem is not None:
                    raise PlanError(call.problem)
                if missing:
                    raise PlanError(f"{call.invocation.module} needs {missing[0]}, which has no result")
                own = int(call.invocation.args.get("seed", seed))
                outcome = self.specialists.run(self._request(call), signal=signal, seed=own)
            except (PlanError, RegionError, SpecialistError) as error:
                results.append(CallResult(call=call, error=error))
            else:
                # a call that failed leaves no gap: handles count what there is
                artefact = outcome.result.artefact.timed_like(self._media.artefacts.get(call.input or ""))
                handles[planned.output] = self.add_media(artefact)
                results.append(
                    CallResult(
                        call=replace(call, output=handles[planned.output]),
                        artefact=artefact,
                        specialist=outcome.specialist,
                        note=outcome.result.note,
                        failures=outcome.failures,
                    )
                )
            yield results[-1]

    def _request(self, call: PlannedCall) -> Request:
        invocation, module = call.invocation, self.modules[call.invocation.module]
        media = None if call.input is None else self._media.artefacts[call.input]
        region, mask = invocation.region, None
        if region is not None and media is not None:
            region, mask = self._media.resolve(region, media, str(call.input))
        return Request(
            module=invocation.module,
            actions=tuple(
                Action(module.action(each), each.text, each.verb) for each in invocation.instruction
            ),
            media=media,
            mask=mask,
            region=region,
            frames=invocation.frames,
            args=invocation.args,
        )


def _second(sampling: SamplingParams) -> SamplingParams:
    """Return the sampling options of a second attempt."""
    return replace(
        sampling,
        constrained=True,
        seed=sampling.seed + 1,
        temperature=max(sampling.temperature, RETRY_TEMPERATURE),
    )


def _renamed(call: PlannedCall, handles: Mapping[str, str]) -> PlannedCall:
    """Return a call whose input and region have the handles that results got instead of the planned ones."""
    region = call.invocation.region
    if isinstance(region, ReferenceRegion) and region.name in handles:
        region = region.model_copy(update={"name": handles[region.name]})
        call = replace(call, invocation=call.invocation.model_copy(update={"region": region}))
    return replace(call, input=handles.get(call.input or "", call.input))
