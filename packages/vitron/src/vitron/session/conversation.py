# SPDX-License-Identifier: Apache-2.0
"""A conversation: messages, and their media and masks by handle."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vitron.errors import PlanError, RegionError, SpecialistError
from vitron.protocol import MODULES, ModuleRegistry, StreamParser
from vitron.protocol.contract import Invocation, Issue, MediaKind, ReferenceRegion, Region, Turn
from vitron.protocol.media import Artefact
from vitron.protocol.messages import (
    HANDLE_PREFIXES,
    MediaPart,
    Message,
    MessageChunk,
    MessageGenerator,
    Part,
    PlacedRegion,
    RegionPart,
    TextPart,
)
from vitron.protocol.regions.raster import rasterise
from vitron.protocol.sampling import SamplingParams
from vitron.session.calls import CallResult, PlannedCall, next_handle, plan_calls
from vitron.session.events import (
    CallEvent,
    DoneEvent,
    Event,
    IssueEvent,
    MessageEvent,
    ResultEvent,
    TextEvent,
)
from vitron.specialists.protocol import Action, Request
from vitron.specialists.registry import SpecialistRegistry

__all__ = ["Conversation"]

Signal = NDArray[np.float32]


class Conversation:
    """One exchange of messages between a user and a model, with the user's media and the results.

    Images have the handles ``img_1``, ``img_2``, ..., videos ``vid_1``, masks ``mask_1``; a call says
    ``input: img_1`` or puts ``mask_1`` between region tags, and else works on the latest image or video.
    Regions are fractions, so they stay valid in later turns. Conversations share only the specialists.

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
        self._media = dict[str, Artefact]()  # in order of arrival: messages refer to it from 0
        self._regions = list[PlacedRegion]()
        self._counts: dict[MediaKind, int] = dict.fromkeys(HANDLE_PREFIXES, 0)

    @property
    def media(self) -> Mapping[str, Artefact]:
        """All media by handle, in order: those of the user, and the results of calls."""
        return dict(self._media)

    @property
    def latest(self) -> Artefact | None:
        """The latest image or video; regions of the user lie on it."""
        return next((each for each in reversed(self._media.values()) if each.kind != "masks"), None)

    def fork(self) -> Conversation:
        """Return an independent copy of this conversation."""
        other = Conversation(self.model, specialists=self.specialists, modules=self.modules)
        other.messages = list(self.messages)
        other._media, other._counts = dict(self._media), dict(self._counts)
        other._regions = list(self._regions)
        return other

    # -- messages

    def add_media(self, artefact: Artefact) -> str:
        """Add media of the user.

        Returns:
            Handle of the medium.
        """
        handle = next_handle(self._counts, artefact.kind)
        self._media[handle] = artefact
        return handle

    def add_user_message(
        self, text: str, *, media: Sequence[Artefact] = (), regions: Sequence[Region] = ()
    ) -> tuple[str, ...]:
        """Add a user message; media come first, then regions, then text.

        The latest result that the model has not seen is shown to it with this message.

        Args:
            text: Text of the message. Tags in it are plain text and never become a call.
            media: Images and videos of the message.
            regions: Regions on the latest image or video, those of this message included.

        Returns:
            The handles of the media.

        Raises:
            RegionError: If there is no image, or a region does not fit it. Nothing is kept then.
        """
        known = [*self._media.values(), *media]
        placed = [self._place(region, known) for region in regions]
        shown = self._unseen()
        start = len(self._media)
        handles = tuple(self.add_media(each) for each in media)
        parts: list[Part] = [
            MediaPart(media=position) for position in (*shown, *range(start, len(self._media)))
        ]
        parts += [RegionPart(region=len(self._regions) + number) for number in range(len(placed))]
        self._regions += placed
        if text:
            parts.append(TextPart(text=text))
        self.messages.append(Message(role="user", content=tuple(parts)))
        return handles

    def _unseen(self) -> list[int]:
        """Return the position of the latest result if no message has shown it to the model."""
        seen = {part.media for message in self.messages for part in message.content if part.type == "media"}
        latest = [position for position, each in enumerate(self._media.values()) if each.kind != "masks"]
        return [position for position in latest[-1:] if position not in seen]

    def _place(self, region: Region, known: Sequence[Artefact]) -> PlacedRegion:
        on = [position for position, each in enumerate(known) if each.kind != "masks"]
        if not on:
            raise RegionError("a region needs an image or a video, but this conversation has none")
        mask = self._mask(region, known[on[-1]], "the video")
        return PlacedRegion(media=on[-1], mask=mask, frame=region.frame or 0)

    def _mask(self, region: Region, artefact: Artefact, name: str) -> NDArray[np.bool_]:
        """Return a region of an image, or of a frame of a video, as a mask ``(H, W)``."""
        frame = region.frame or 0
        if frame >= artefact.num_frames:
            raise RegionError(f"{name} has {artefact.num_frames} frames, but no frame {frame}")
        masks = dict[str, NDArray[np.bool_]]()
        if isinstance(region, ReferenceRegion):
            named = self._media.get(region.name)
            masks = {} if named is None or named.kind != "masks" else {region.name: named.joint_mask(frame)}
        return rasterise(region, *artefact.size, masks=masks)

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

        An iterator that is closed before :class:`MessageEvent` leaves the conversation as it was; one that is
        closed later keeps the message and the results so far.

        Args:
            sampling: Sampling options.
            check: Function to call after each chunk; an exception from it ends the message.

        Yields:
            Text, calls and issues, :class:`MessageEvent`, a result for each call, and :class:`DoneEvent`.

        Raises:
            ValueError: If the conversation has no model.
        """
        sampling = sampling or SamplingParams()
        parser, tokens, signals = StreamParser(self.modules), 0, list[Signal | None]()
        for chunk in self._chunks(sampling, check):
            tokens += chunk.tokens
            for event in parser.feed(chunk.text):
                yield _event(event)
                if isinstance(event, Invocation):
                    signals.append(None)
            if chunk.signal is not None and signals:
                signals[-1] = chunk.signal
        turn = parser.close()
        for event in parser.drain():
            yield _event(event)
        self.add_assistant_message(turn)
        yield MessageEvent(turn)
        for result in self.stream_results(turn, seed=sampling.seed, signals=signals):
            yield ResultEvent(result)
        yield DoneEvent(turn, tokens, "length" if tokens >= sampling.max_new_tokens else "stop")

    def _chunks(self, sampling: SamplingParams, check: Callable[[], None] | None) -> Generator[MessageChunk]:
        """Yield what the model generates, up to ``max_new_tokens`` even if the model does not count."""
        if self.model is None:
            raise ValueError("this conversation has no model to generate a message: pass one as model=")
        left = sampling.max_new_tokens
        chunks = self.model.stream(self.messages, list(self._media.values()), self._regions, sampling)
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
        kinds: dict[str, MediaKind] = {handle: each.kind for handle, each in self._media.items()}
        return plan_calls(turn, kinds, self._counts, self.specialists, self.modules)

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
        results = list[CallResult]()
        # outputs are only needed by later calls: the order of the message is an order of the graph
        for call in self.plan(turn):
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
                artefact = outcome.result.artefact
                self._counts[artefact.kind] = max(
                    self._counts[artefact.kind], int(call.output.rsplit("_", 1)[1])
                )
                self._media[call.output] = artefact
                results.append(
                    CallResult(
                        call=call,
                        artefact=artefact,
                        specialist=outcome.specialist,
                        note=outcome.result.note,
                        failures=outcome.failures,
                    )
                )
            yield results[-1]

    def _request(self, call: PlannedCall) -> Request:
        invocation, module = call.invocation, self.modules[call.invocation.module]
        media = None if call.input is None else self._media[call.input]
        mask = None
        if invocation.region is not None and media is not None:
            mask = self._mask(invocation.region, media, str(call.input))
        return Request(
            module=invocation.module,
            actions=tuple(
                Action(module.action(each), each.text, each.verb) for each in invocation.instruction
            ),
            media=media,
            mask=mask,
            region=invocation.region,
            frames=invocation.frames,
            args=invocation.args,
        )


def _event(event: str | Invocation | Issue) -> Event:
    if isinstance(event, str):
        return TextEvent(event)
    return CallEvent(event) if isinstance(event, Invocation) else IssueEvent(event)
