# SPDX-License-Identifier: Apache-2.0
"""What is measured and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Mode = Literal["forward", "both"]
Status = Literal["ok", "failed", "refused"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Inputs of one case, bound to everything that is to compute them.

    Attributes:
        contenders: Name to a call without arguments; ``"auto"`` is what a user gets.
        reference: The same result by the specification in float64, or ``None`` to trust ``"auto"``.
        leaves: Inputs that get gradients in mode ``"both"``.
    """

    contenders: Mapping[str, Callable[[], Tensor]]
    reference: Callable[[], Tensor] | None
    leaves: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Case:
    """One size of one operator.

    Attributes:
        name: Unique, short.
        op: Operator.
        shape: Its sizes, by the symbols of the documentation.
        make: Builds the problem on a device; the same one at every call.
        modes: ``"forward"``, and ``"both"`` for forward and backward.
        baseline: Contender that speed-ups refer to; the slow classical way.
        flop: Operations that the forward cannot avoid.
        min_bytes: Memory traffic that the forward cannot avoid.
        tolerance: Largest relative error in the l2 norm.
    """

    name: str
    op: str
    shape: Mapping[str, int]
    make: Callable[[torch.device], Problem]
    baseline: str
    modes: tuple[Mode, ...] = ("forward",)
    flop: float = 0.0
    min_bytes: float = 0.0
    tolerance: float = 1e-5


@dataclass(slots=True)
class Measurement:
    """One contender on one case in one mode; times in milliseconds, memory in MiB.

    Attributes:
        case: Name of the case.
        op: Operator.
        shape: Sizes.
        mode: What was run.
        contender: What ran it.
        status: ``"failed"`` results are not timed; ``"refused"`` ones did not run.
        error: Relative error against float64.
        times_ms: Every timed run.
        peak_mib: Most memory held beyond the inputs in one forward.
        roofline: Share of the forward's lower bound, set by the rates measured in the same run.
        note: Why it was refused.
    """

    case: str
    op: str
    shape: Mapping[str, int]
    mode: Mode
    contender: str
    status: Status = "ok"
    error: float | None = None
    times_ms: list[float] = field(default_factory=list)
    peak_mib: float | None = None
    roofline: float | None = None
    note: str = ""

    def quantile(self, share: float) -> float:
        """Return a quantile of the times, in milliseconds."""
        times = torch.tensor(self.times_ms, dtype=torch.float64)
        return float(times.quantile(share))

    @property
    def median_ms(self) -> float:
        """Median time in milliseconds."""
        return self.quantile(0.5)
