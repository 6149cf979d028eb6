# SPDX-License-Identifier: Apache-2.0
"""What a script declares: cases, their inputs, and who competes on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

Mode = Literal["forward", "backward", "both"]
Kind = Literal["auto", "backend", "peer", "part"]
MODES: tuple[Mode, ...] = ("forward", "backward", "both")


@dataclass(frozen=True, slots=True)
class Inputs:
    """One set of inputs.

    Attributes:
        leaves: Floating tensors by name; each asks for a gradient if there is a ``grad_output``.
        shared: Whatever else the contenders read, the same object for all of them.
        grad_output: Gradient that arrives at the output, or ``None`` if the operator has no backward.
    """

    leaves: dict[str, Tensor]
    shared: Any = None
    grad_output: Tensor | None = None

    def to(self, dtype: torch.dtype) -> Inputs:
        """Return a copy with leaves and grad_output in another dtype."""
        leaves = {name: x.detach().to(dtype) for name, x in self.leaves.items()}
        return Inputs(leaves, self.shared, None if self.grad_output is None else self.grad_output.to(dtype))


def _nothing(inputs: Inputs) -> Any:
    return inputs.shared


def _no_reason(inputs: Inputs) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to compute an operator.

    Attributes:
        name: Unique within a case.
        kind: ``"auto"`` is what a user gets, ``"backend"`` another of ours by name, ``"peer"`` somebody
            else's way, ``"part"`` a piece of the work that is timed but competes with nobody.
        run: Function of the leaves and of the result of ``prepare``: the output.
        prepare: Builds once what layers share: a mask, a dictionary without its lazy forms. Not part of a
            timed run, but of the first call.
        why_not: Reason to leave it out for these inputs, or ``None``.
        trains: Whether it has a backward.
        is_same: Whether it computes the operator; one that does not, such as attention without the mask, is
            timed as a bound and never compared.
        describe: Function of the inputs: a note for the results.
    """

    name: str
    kind: Kind
    run: Callable[[Mapping[str, Tensor], Any], Tensor]
    prepare: Callable[[Inputs], Any] = _nothing
    why_not: Callable[[Inputs], str | None] = _no_reason
    trains: bool = True
    is_same: bool = True
    describe: Callable[[Inputs], str] | None = None


def _as_it_is(inputs: Inputs, output: Tensor) -> Tensor:
    return output


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One size of one operator.

    Attributes:
        op: Operator.
        name: Unique within the operator, short.
        shape: Sizes by the symbols of the documentation.
        dtype: Dtype of the leaves.
        make_inputs: Function of seed, device and dtype: the inputs.
        contenders: Exactly one is of kind ``"auto"``.
        reference: Function of inputs of any dtype: ``"output"`` and the gradient of each leaf by name.
        comparable: Turns a contender's output into what is compared, for outputs whose order is free.
        modes: What is timed.
        flop: Operations that cannot be avoided, by mode.
        traffic: Bytes of memory traffic that cannot be avoided, by mode.
        reduction: Length of the longest sum, which sets how much rounding may add up.
    """

    op: str
    name: str
    shape: Mapping[str, int]
    dtype: torch.dtype
    make_inputs: Callable[[int, torch.device, torch.dtype], Inputs]
    contenders: tuple[Contender, ...]
    reference: Callable[[Inputs], dict[str, Tensor]]
    comparable: Callable[[Inputs, Tensor], Tensor] = _as_it_is
    modes: tuple[Mode, ...] = MODES
    flop: Mapping[Mode, float] = field(default_factory=dict[Mode, float])
    traffic: Mapping[Mode, float] = field(default_factory=dict[Mode, float])
    reduction: int = 1

    def __post_init__(self) -> None:
        autos = [c.name for c in self.contenders if c.kind == "auto"]
        if len(autos) != 1:
            raise ValueError(f"contenders must hold exactly one of kind 'auto', got {autos}")
        names = [c.name for c in self.contenders]
        if len(set(names)) < len(names):
            raise ValueError(f"contenders must have different names, got {names}")
