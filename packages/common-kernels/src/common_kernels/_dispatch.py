# SPDX-License-Identifier: Apache-2.0
"""Choice of an implementation: the first that gives no reason against itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class BackendUnavailableError(RuntimeError):
    """The named backend cannot run this call on this machine."""


@dataclass(frozen=True, slots=True)
class Implementation(Generic[P, R]):
    """One way to compute an operator.

    Attributes:
        name: What the caller writes as ``backend=``.
        why_not: Function of the operator's arguments: the reason it cannot run them, or ``None``.
        run: Function of the same arguments: the result of the operator.
        not_auto: Function of the same arguments: why ``"auto"`` should pass it by although it could run
            them (it would be slower here), or ``None``.
    """

    name: str
    why_not: Callable[P, str | None]
    run: Callable[P, R]
    not_auto: Callable[P, str | None] | None = None


def choose(
    op: str, backend: str, implementations: Sequence[Implementation[P, R]], *args: P.args, **kwargs: P.kwargs
) -> Implementation[P, R]:
    """Return the implementation that runs this call.

    Args:
        op: Operator name, for messages.
        backend: ``"auto"`` or the name of one implementation. A named one runs, or this
            function raises.
        implementations: All of them, in the order in which ``"auto"`` prefers them.
        *args: The operator's positional arguments.
        **kwargs: The operator's keyword arguments.

    Returns:
        The chosen implementation.

    Raises:
        ValueError: If no implementation has the given name.
        BackendUnavailableError: If the named one, or every one under ``"auto"``, refuses.
    """
    if backend == "auto":
        fallback: Implementation[P, R] | None = None
        for candidate in implementations:
            if candidate.why_not(*args, **kwargs) is not None:
                continue
            if candidate.not_auto is None or candidate.not_auto(*args, **kwargs) is None:
                return candidate
            fallback = fallback or candidate
        if fallback is not None:
            return fallback
        reasons = explain(implementations, *args, **kwargs)
        raise BackendUnavailableError(f"no backend of {op} runs this call: {reasons}")
    for candidate in implementations:
        if candidate.name == backend:
            reason = candidate.why_not(*args, **kwargs)
            if reason is not None:
                raise BackendUnavailableError(f"backend={backend!r} of {op} cannot run this call: {reason}")
            return candidate
    names = ", ".join(repr(i.name) for i in implementations)
    raise ValueError(f"backend must be 'auto' or one of {names}, got {backend!r}")


def explain(
    implementations: Sequence[Implementation[P, R]], *args: P.args, **kwargs: P.kwargs
) -> dict[str, str | None]:
    """Map each implementation's name to its reason against running or being chosen, ``None`` if fit."""
    reasons: dict[str, str | None] = {}
    for implementation in implementations:
        reason = implementation.why_not(*args, **kwargs)
        if reason is None and implementation.not_auto is not None:
            preference = implementation.not_auto(*args, **kwargs)
            reason = None if preference is None else f"runs, but auto prefers another: {preference}"
        reasons[implementation.name] = reason
    return reasons
