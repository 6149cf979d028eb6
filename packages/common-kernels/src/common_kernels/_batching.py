# SPDX-License-Identifier: Apache-2.0
"""``torch.func.vmap`` over the opaque operators: a mapped axis becomes more windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Run = Callable[..., tuple[Tensor, ...]]


def run_batched(
    run: Run,
    batch_size: int,
    in_dims: Sequence[int | None],
    arguments: Sequence[Any],
    *,
    shared: Sequence[int],
) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    """Run an operator once for all entries of a mapped axis, as more windows.

    Args:
        run: The operator.
        batch_size: Length of the mapped axis.
        in_dims: Where each argument has it, ``None`` where it does not.
        arguments: Arguments of the operator; the first axis of tensors counts windows.
        shared: Positions of tensors without such an axis, such as a bias. If one of them is mapped, the
            entries are run one after the other.

    Returns:
        The results and the axis along which each is mapped, ``None`` for those that have no windows.
    """
    if any(in_dims[place] is not None for place in shared):
        return run_one_by_one(run, batch_size, in_dims, arguments)
    folded = [
        x if place in shared or not isinstance(x, Tensor) else _fold(x, dim, batch_size)
        for place, (x, dim) in enumerate(zip(arguments, in_dims, strict=True))
    ]
    results = run(*folded)
    mapped = tuple(x.ndim > 1 for x in results)  # one without elements stands for nothing
    whole = (x.unflatten(0, (batch_size, -1)) if m else x for x, m in zip(results, mapped, strict=True))
    return tuple(whole), tuple(0 if m else None for m in mapped)


def run_one_by_one(
    run: Run, batch_size: int, in_dims: Sequence[int | None], arguments: Sequence[Any]
) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    """Run an operator for each entry of a mapped axis in turn; see :func:`run_batched`."""
    entries = [
        run(*(x if dim is None else x.select(dim, n) for x, dim in zip(arguments, in_dims, strict=True)))
        for n in range(batch_size)
    ]
    results = tuple(torch.stack(parts) for parts in zip(*entries, strict=True))
    return results, (0,) * len(results)


def _fold(x: Tensor, dim: int | None, batch_size: int) -> Tensor:
    whole = x.expand(batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
    return whole.flatten(0, 1)
