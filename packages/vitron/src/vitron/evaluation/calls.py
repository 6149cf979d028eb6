# SPDX-License-Identifier: Apache-2.0
"""Scores of the calls that a model generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vitron.evaluation.figures import Figure, mean_figure
from vitron.evaluation.metrics import box_iou, mask_iou
from vitron.protocol.contract import Instruction, Invocation, Region, Turn
from vitron.protocol.regions.raster import rasterise

__all__ = ["CallScores", "TurnScore", "score_turn"]

EXACT_REGION = 0.9  # IoU from which a region counts as the same
_GRID = 256  # side in pixels of the grid on which regions are compared


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnScore:
    """Score of one message; ``None`` where a score does not apply.

    Attributes:
        wants_calls: Whether calls are expected.
        has_calls: Whether the message has calls.
        parsed: Whether the message was parsed without an issue.
        modules: Whether the calls name the true modules, in order.
        instructions: Whether all instructions are the true ones, ignoring case and spaces.
        region: Mean IoU with the true regions, by position.
        exact: Whether modules, instructions, arguments and frames are correct, and regions nearly.
        executed: Share of the calls that were run.
    """

    wants_calls: bool
    has_calls: bool
    parsed: bool
    modules: bool | None = None
    instructions: bool | None = None
    region: float | None = None
    exact: bool | None = None
    executed: float | None = None


def score_turn(found: Turn, wanted: Sequence[Invocation], executed: Sequence[bool] = ()) -> TurnScore:
    """Compare a message with the true calls.

    Args:
        found: Parsed message.
        wanted: True calls; none if text alone is correct.
        executed: Whether each call of the message was run.
    """
    calls = found.invocations
    done = sum(executed) / len(executed) if executed else None
    common = {"wants_calls": bool(wanted), "has_calls": bool(calls), "parsed": not found.issues}
    if not wanted:
        return TurnScore(**common, executed=done)
    pairs = list(zip(calls, wanted, strict=False))
    modules = [call.module for call in calls] == [call.module for call in wanted]
    same = modules and all(_instructions(a.instruction) == _instructions(b.instruction) for a, b in pairs)
    regions = [
        _region_iou(calls[at].region if at < len(calls) else None, call.region)
        for at, call in enumerate(wanted)
        if call.region is not None
    ]
    spurious = any(a.region is not None and b.region is None for a, b in pairs)
    rest = all(dict(a.args) == dict(b.args) and a.frames == b.frames for a, b in pairs)
    exact = same and rest and not spurious and all(iou >= EXACT_REGION for iou in regions)
    return TurnScore(
        **common,
        modules=modules,
        instructions=same,
        region=sum(regions) / len(regions) if regions else None,
        exact=exact,
        executed=done,
    )


def _instructions(instructions: Sequence[Instruction]) -> list[tuple[str, str]]:
    return [(each.verb, " ".join(each.text.lower().split())) for each in instructions]


def _region_iou(found: Region | None, true: Region | None) -> float:
    if found is None or true is None:
        return 0.0
    if found.kind == "ref" or true.kind == "ref":
        return float(found == true)
    if found.kind == "box" and true.kind == "box":
        return box_iou(found.corners, true.corners)
    return mask_iou(rasterise(found, _GRID, _GRID), rasterise(true, _GRID, _GRID))


@dataclass(slots=True)
class CallScores:
    """Scores of many messages together."""

    turns: list[TurnScore] = field(default_factory=list[TurnScore])

    def add(self, turn: TurnScore) -> None:
        """Add one message."""
        self.turns.append(turn)

    def figures(self) -> dict[str, Figure]:
        """Return the rates in [0, 1] with their confidence intervals; rates without a message are omitted.

        ``module_accuracy``, ``instruction_exact``, ``region_iou`` and ``invocation_exact`` are means over
        messages that should have calls, ``spurious_rate`` is the share of the others that have calls,
        ``parse_rate`` is over all, ``execution_rate`` over messages with calls.
        """
        wanting = [turn for turn in self.turns if turn.wants_calls]
        plain = [turn for turn in self.turns if not turn.wants_calls]
        values = {
            "module_accuracy": [turn.modules for turn in wanting],
            "instruction_exact": [turn.instructions for turn in wanting],
            "region_iou": [turn.region for turn in wanting],
            "invocation_exact": [turn.exact for turn in wanting],
            "parse_rate": [turn.parsed for turn in self.turns],
            "spurious_rate": [turn.has_calls for turn in plain],
            "execution_rate": [turn.executed for turn in self.turns],
        }
        known = {name: [float(v) for v in each if v is not None] for name, each in values.items()}
        return {name: mean_figure(each) for name, each in known.items() if each}
