# SPDX-License-Identifier: Apache-2.0
"""Why each backend of an operator would not run a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common_kernels.ops.fuse_phase import explain_fuse_phase
from common_kernels.ops.knn_attention import explain_knn_attention
from common_kernels.ops.knn_dictionary import explain_knn_dictionary

_OPERATORS: dict[str, Callable[..., dict[str, str | None]]] = {
    "fuse_phase": explain_fuse_phase,
    "knn_attention": explain_knn_attention,
    "knn_dictionary": explain_knn_dictionary,
}


def explain_backends(op: str, *args: Any, **kwargs: Any) -> dict[str, str | None]:
    """Explain why each backend of an operator would not take a call.

    Args:
        op: ``"knn_attention"``, ``"knn_dictionary"`` or ``"fuse_phase"``.
        *args: Positional arguments of the operator.
        **kwargs: Keyword arguments of the operator, except ``backend``.

    Returns:
        Backend names, in the order in which ``"auto"`` asks them, with the reason against each or ``None``.

    Raises:
        ValueError: If there is no such operator, or the arguments are invalid for it.

    Example:
        >>> import torch
        >>> x = torch.zeros(1, 4, 4)
        >>> explain_backends("fuse_phase", x, x)["phasor"] is None
        True
    """
    if op not in _OPERATORS:
        raise ValueError(f"op must be one of {', '.join(_OPERATORS)}, got {op!r}")
    return _OPERATORS[op](*args, **kwargs)
