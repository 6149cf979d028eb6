# SPDX-License-Identifier: Apache-2.0
"""The calls of an assistant message: planned, and run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vitron.errors import PlanError, RegionError, SpecialistError, explain
from vitron.protocol.contract import Invocation, MediaKind, ReferenceRegion, Turn
from vitron.protocol.media import Artefact
from vitron.protocol.modules import ModuleRegistry
from vitron.session.media import ConversationMedia, next_handle
from vitron.specialists.registry import SpecialistRegistry

__all__ = ["MAX_CALLS", "CallResult", "PlannedCall", "plan_calls"]

MAX_CALLS = 16  # calls of one message


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCall:
    """One call of a message, planned.

    Attributes:
        index: Position in the message.
        invocation: The call.
        specialists: Names of the specialists to try, in order.
        input: Handle of the image or video to work on; ``None`` for a module that works from text alone.
        output: Handle of the result, if no call of the message fails.
        after: Positions of the calls whose outputs it needs.
        problem: Reason why it cannot run; ``None`` if it can.
    """

    index: int
    invocation: Invocation
    specialists: tuple[str, ...]
    input: str | None
    output: str
    after: tuple[int, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CallResult:
    """The result of one call.

    Attributes:
        call: The call as it ran; ``output`` is the handle of the result.
        artefact: The result, kept as ``call.output``; ``None`` after an error.
        error: Reason why there is no result.
        specialist: Name of the specialist that ran the call.
        note: One sentence from the specialist.
        failures: Reasons why the specialists tried before failed.
    """

    call: PlannedCall
    artefact: Artefact | None = None
    error: PlanError | RegionError | SpecialistError | None = None
    specialist: str = ""
    note: str = ""
    failures: tuple[str, ...] = ()


def plan_calls(
    turn: Turn, media: ConversationMedia, specialists: SpecialistRegistry, modules: ModuleRegistry
) -> list[PlannedCall]:
    """Plan the specialists, the order and the inputs of the calls.

    Args:
        turn: An assistant message with calls; a call with an issue is planned with its problem.
        media: Media and regions of the conversation.
        specialists: Registry of specialists.
        modules: Modules that may be called.
    """
    kinds, sizes = media.kinds, media.sizes
    makers, planned = dict[str, int](), list[PlannedCall]()
    for index, call in enumerate(turn.invocations):
        problem = turn.refusal(index)
        if index >= MAX_CALLS:
            problem = f"a message has at most {MAX_CALLS} calls"
        source, needed = None, list[str]()
        try:
            region = _reference(call, kinds, sizes)
            source = _input(call, kinds, sizes, modules)
            needed = [handle for handle in (source, region) if handle is not None]
        except PlanError as error:
            problem = problem or explain(error)
        asked = specialists.for_module(call.module)
        if not asked:
            problem = problem or specialists.missing(call.module)
        kind: MediaKind = modules[call.module].output if call.module in modules else "image"
        output = next_handle(kinds, kind)
        planned.append(
            PlannedCall(
                index=index,
                invocation=call,
                specialists=asked,
                input=source,
                output=output,
                after=tuple(sorted({makers[handle] for handle in needed if handle in makers})),
                problem=problem,
            )
        )
        if problem is None:
            makers[output], kinds[output] = index, kind
    return planned


def _input(
    call: Invocation,
    kinds: Mapping[str, MediaKind],
    sizes: Mapping[str, tuple[int, int]],
    modules: ModuleRegistry,
) -> str | None:
    """Return the handle of the input: the named medium, else the latest that the call's region fits."""
    if call.module not in modules:
        raise PlanError(f"there is no module {call.module}")
    wanted: Sequence[MediaKind] = modules[call.module].inputs
    named = call.args.get("input")
    if not wanted:
        return None
    if named is None:
        found = [handle for handle, kind in kinds.items() if kind in wanted]
        if not found:
            raise PlanError(f"{call.module} needs {' or '.join(wanted)}, but this conversation has none")
        size = sizes.get(call.region.name) if isinstance(call.region, ReferenceRegion) else None
        # the size of what an earlier call of this message makes is not known yet
        fitting = [handle for handle in found if size is None or sizes.get(handle, size) == size]
        return (fitting or found)[-1]
    if str(named) not in kinds:
        raise PlanError(f"there is no {named} in this conversation")
    if kinds[str(named)] not in wanted:
        raise PlanError(f"{call.module} needs {' or '.join(wanted)}, but {named} is {kinds[str(named)]}")
    return str(named)


def _reference(
    call: Invocation, kinds: Mapping[str, MediaKind], sizes: Mapping[str, tuple[int, int]]
) -> str | None:
    """Return the handle of the mask or of the user's region that is a call's region."""
    if not isinstance(call.region, ReferenceRegion):
        return None
    if call.region.name not in kinds and call.region.name not in sizes:
        raise PlanError(f"there is no {call.region.name} in this conversation")
    return call.region.name
