# SPDX-License-Identifier: Apache-2.0
"""Carries out the calls of each turn, and keeps what they made under names that later calls can use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitron.errors import PlanError, RegionError, SpecialistError, explain
from vitron.protocol.contract import Invocation, MediaKind, ReferenceRegion, Turn
from vitron.protocol.media import Artefact
from vitron.protocol.modules import MODULES, ModuleRegistry
from vitron.protocol.regions.raster import rasterise
from vitron.specialists.protocol import Request, Said
from vitron.specialists.registry import SpecialistRegistry

__all__ = ["Conversation", "Step", "StepResult"]

PREFIXES: dict[MediaKind, str] = {"image": "img", "video": "vid", "masks": "mask"}
MAX_CALLS = 16  # in one turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call of a turn, planned.

    Attributes:
        index: Position in the turn.
        invocation: The call.
        specialists: Who will be asked, in order.
        input: Name of the picture or clip to work on; ``None`` where something is made from words.
        output: Name of what will be made.
        after: Positions of the calls whose outputs it needs.
        problem: Why it cannot be carried out; ``None`` if it can.
    """

    index: int
    invocation: Invocation
    specialists: tuple[str, ...]
    input: str | None
    output: str
    after: tuple[int, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepResult:
    """What came of one call.

    Attributes:
        step: The call as it was planned.
        artefact: What was made, kept as ``step.output``; ``None`` after an error.
        error: Why nothing was made.
        specialist: Who made it.
        note: One sentence by the specialist.
        failures: Why others who were asked before could not.
    """

    step: Step
    artefact: Artefact | None = None
    error: PlanError | RegionError | SpecialistError | None = None
    specialist: str = ""
    note: str = ""
    failures: tuple[str, ...] = ()


class Conversation:
    """What one user and one model have made so far.

    Pictures are called ``img_1`` and on, clips ``vid_1``, masks ``mask_1``; a call says ``input: img_1`` or
    puts ``mask_1`` between region tags, and else works on the latest picture or clip. Regions are fractions,
    so they stay what they were however many turns later they are used. No two conversations share anything
    but the specialists.

    Args:
        specialists: Who can be asked; by default all that are installed.
        modules: What may be called.

    Example:
        >>> from vitron import parse
        >>> talk = Conversation()
        >>> reply = "<module>A</module><instruction>draw: a red circle</instruction>"
        >>> made = talk.run(parse(reply))[0]
        >>> made.step.output, made.artefact.data.shape
        ('img_1', (64, 64, 3))
    """

    def __init__(
        self, specialists: SpecialistRegistry | None = None, *, modules: ModuleRegistry = MODULES
    ) -> None:
        self.specialists = SpecialistRegistry().discover() if specialists is None else specialists
        self.modules = modules
        self._media: dict[str, Artefact] = {}
        self._counts: dict[MediaKind, int] = dict.fromkeys(PREFIXES, 0)

    @property
    def media(self) -> Mapping[str, Artefact]:
        """Everything there is, by name, in the order it came."""
        return dict(self._media)

    def add(self, artefact: Artefact) -> str:
        """Keep what a user brings.

        Returns:
            Its name.
        """
        name = _next_name(self._counts, artefact.kind)
        self._media[name] = artefact
        return name

    def plan(self, turn: Turn) -> list[Step]:
        """Say who will do what, in what order, with what; nothing is loaded or run.

        Args:
            turn: A reply with calls. A call with an issue is planned with its problem and will not be run.
        """
        counts = dict(self._counts)
        kinds: dict[str, MediaKind] = {name: each.kind for name, each in self._media.items()}
        makers, steps = dict[str, int](), list[Step]()
        for index, call in enumerate(turn.invocations):
            problem = turn.refusal(index)
            if index >= MAX_CALLS:
                problem = f"a turn has at most {MAX_CALLS} calls"
            source: str | None = None
            needed = list[str]()
            try:
                source = self._input(call, kinds)
                needed = [name for name in (source, _reference(call, kinds)) if name is not None]
            except PlanError as error:
                problem = problem or explain(error)
            asked = self.specialists.for_module(call.module)
            if not asked:
                problem = problem or f"no specialist serves {call.module}: install one that does"
            kind: MediaKind = self.modules[call.module].output if call.module in self.modules else "image"
            output = _next_name(counts, kind)
            steps.append(
                Step(
                    index=index,
                    invocation=call,
                    specialists=asked,
                    input=source,
                    output=output,
                    after=tuple(sorted({makers[name] for name in needed if name in makers})),
                    problem=problem,
                )
            )
            if problem is None:
                makers[output], kinds[output] = index, kind
        return steps

    def _input(self, call: Invocation, kinds: Mapping[str, MediaKind]) -> str | None:
        """Return the name of what a call works on."""
        if call.module not in self.modules:
            raise PlanError(f"there is no module {call.module}")
        wanted = self.modules[call.module].inputs
        named = call.args.get("input")
        if not wanted:
            return None
        if named is None:
            found = [name for name, kind in kinds.items() if kind in wanted]
            if not found:
                raise PlanError(
                    f"{call.module} needs {' or '.join(wanted)}, and there is none in this conversation"
                )
            return found[-1]
        if str(named) not in kinds:
            raise PlanError(f"there is no {named} in this conversation")
        if kinds[str(named)] not in wanted:
            raise PlanError(f"{call.module} needs {' or '.join(wanted)}, and {named} is {kinds[str(named)]}")
        return str(named)

    def run(
        self, turn: Turn, *, seed: int = 0, signals: Sequence[NDArray[np.float32] | None] = ()
    ) -> list[StepResult]:
        """Carry out the calls of a turn, each after those it needs.

        A call that fails is reported, with those that need what it should have made; the others are carried
        out and the conversation goes on.

        Args:
            turn: A reply.
            seed: For all calls that name none.
            signals: Signal embeddings of each call, ``(N, C)``, or ``None``.

        Returns:
            One result for each call, in order.
        """
        return list(self.results(turn, seed=seed, signals=signals))

    def results(
        self, turn: Turn, *, seed: int = 0, signals: Sequence[NDArray[np.float32] | None] = ()
    ) -> Iterator[StepResult]:
        """Do as :meth:`run`, and yield each result as soon as it is there; closing ends the work."""
        results = list[StepResult]()
        # outputs are only ever needed further on: the order of the reply is an order of the graph
        for step in self.plan(turn):
            signal = signals[step.index] if step.index < len(signals) else None
            missing = [results[index].step.output for index in step.after if results[index].artefact is None]
            try:
                if step.problem is not None:
                    raise PlanError(step.problem)
                if missing:
                    raise PlanError(f"{step.invocation.module} needs {missing[0]}, which was not made")
                own = int(step.invocation.args.get("seed", seed))
                outcome = self.specialists.run(self._request(step), signal=signal, seed=own)
            except (PlanError, RegionError, SpecialistError) as error:
                results.append(StepResult(step=step, error=error))
                yield results[-1]
                continue
            kind = outcome.result.artefact.kind
            self._counts[kind] = max(self._counts[kind], int(step.output.rsplit("_", 1)[1]))
            self._media[step.output] = outcome.result.artefact
            results.append(
                StepResult(
                    step=step,
                    artefact=outcome.result.artefact,
                    specialist=outcome.specialist,
                    note=outcome.result.note,
                    failures=outcome.failures,
                )
            )
            yield results[-1]

    def fork(self) -> Conversation:
        """Return a conversation that begins with all that is in this one and goes its own way."""
        other = Conversation(self.specialists, modules=self.modules)
        other._media, other._counts = dict(self._media), dict(self._counts)
        return other

    def _request(self, step: Step) -> Request:
        call, module = step.invocation, self.modules[step.invocation.module]
        media = None if step.input is None else self._media[step.input]
        mask = None
        if call.region is not None and media is not None:
            frame = call.region.frame or 0
            if frame >= media.num_frames:
                raise RegionError(f"{step.input} has {media.num_frames} frames, and {frame} is none of them")
            masks = {
                name: each.joint_mask(frame) for name, each in self._media.items() if each.kind == "masks"
            }
            mask = rasterise(call.region, *media.size, masks=masks)
        return Request(
            module=call.module,
            said=tuple(Said(module.action(each), each.text, each.verb) for each in call.instruction),
            media=media,
            mask=mask,
            region=call.region,
            frames=call.frames,
            args=call.args,
        )


def _reference(call: Invocation, kinds: Mapping[str, MediaKind]) -> str | None:
    """Return the name of the mask that a call's region is."""
    if not isinstance(call.region, ReferenceRegion):
        return None
    if call.region.name not in kinds:
        raise PlanError(f"there is no {call.region.name} in this conversation")
    return call.region.name


def _next_name(counts: dict[MediaKind, int], kind: MediaKind) -> str:
    counts[kind] += 1
    return f"{PREFIXES[kind]}_{counts[kind]}"
