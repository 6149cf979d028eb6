# SPDX-License-Identifier: Apache-2.0
"""Several processes that share the patches of a step."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, distributed

__all__ = ["ProcessRanks", "Ranks"]


class Ranks(Protocol):
    """The processes of a job; each holds all canvases, and only results of patches are exchanged."""

    @property
    def index(self) -> int:
        """Rank of this process; rank 0 keeps the journal."""
        ...

    @property
    def count(self) -> int:
        """Number of processes."""
        ...

    def gather(self, own: Tensor) -> list[Tensor]:
        """Return the values of all processes, by rank; shapes and dtypes agree."""
        ...

    def broadcast(self, values: Tensor) -> Tensor:
        """Return the values of process 0; shapes and dtypes agree."""
        ...


class ProcessRanks:
    """Ranks over a process group of torch, as ``torchrun`` or ``accelerate launch`` start it.

    Args:
        group: Process group; the default one if ``None``.
    """

    def __init__(self, group: distributed.ProcessGroup | None = None) -> None:
        self._group = group
        self._index = distributed.get_rank(group)
        self._count = distributed.get_world_size(group)

    @property
    def index(self) -> int:
        """Rank of this process."""
        return self._index

    @property
    def count(self) -> int:
        """Number of processes."""
        return self._count

    def gather(self, own: Tensor) -> list[Tensor]:
        """Return the values of all processes, by rank."""
        own = own.contiguous()
        given = [torch.empty_like(own) for _ in range(self._count)]
        distributed.all_gather(given, own, group=self._group)
        return given

    def broadcast(self, values: Tensor) -> Tensor:
        """Return the values of process 0."""
        values = values.contiguous()
        distributed.broadcast(values, group=self._group, group_src=0)
        return values
