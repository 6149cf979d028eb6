# SPDX-License-Identifier: Apache-2.0
"""The processes that ``accelerate launch`` or ``torchrun`` started: rank, device, shards, gathering."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

__all__ = ["Processes", "join_processes", "leave_processes"]

T = TypeVar("T")
# a rank with the larger shard may keep the others waiting for long
_TIMEOUT = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """One process among those of a run.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes.
        local_rank: Number of this process on its machine, from 0.
        connected: Whether the processes can exchange values; a lone process counts as connected.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    connected: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"RANK must lie in [0, WORLD_SIZE), got {self.rank} of {self.world_size}")

    @property
    def is_main(self) -> bool:
        """Whether this is the process that reports."""
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """Return every ``world_size``-th item, beginning at ``rank``."""
        return items[self.rank :: self.world_size]

    def device(self, requested: str = "auto") -> str:
        """Return the device of this process.

        Args:
            requested: ``"auto"``, ``"cpu"``, ``"cuda"`` or another name of torch. Among several processes
                ``"auto"`` and the accelerator's name become that of this process's local rank.

        Returns:
            ``"cpu"``, such as ``"cuda:n"``, or ``requested`` where it names one device.
        """
        if self.world_size == 1 or requested == "cpu" or ":" in requested or _on_cpu():
            return "cpu" if requested == "auto" and _on_cpu() else requested
        import torch

        found = torch.accelerator.current_accelerator(check_available=True)
        if found is None or requested not in ("auto", found.type):
            return requested
        return f"{found.type}:{self.local_rank % torch.accelerator.device_count()}"

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.world_size > 1 and self.connected:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank; this process's alone if they are not connected.

        Args:
            value: Anything that can be pickled.
        """
        if self.world_size == 1 or not self.connected:
            return [value]
        from accelerate.utils import gather_object

        return list(gather_object([value]))


def join_processes(device: str = "auto") -> Processes:
    """Join the other processes of the run, if there are any. Call this before a model is loaded.

    A process group is only opened when ``WORLD_SIZE`` is above 1. Where no ``MASTER_ADDR`` is set, as with
    ``RANK=0 WORLD_SIZE=2`` by hand, items are sharded and nothing is gathered.

    Args:
        device: Device that was asked for; ``"cpu"`` chooses a process group for the CPU.

    Raises:
        ValueError: If the variables contradict each other.
        ImportError: If accelerate is missing.
    """
    try:
        world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    except ValueError as error:
        raise ValueError(f"RANK, LOCAL_RANK and WORLD_SIZE must be numbers: {error}") from error
    if world_size == 1:
        return Processes()
    if "MASTER_ADDR" not in os.environ:
        return Processes(rank=rank, world_size=world_size, local_rank=local_rank, connected=False)
    import torch

    try:
        from accelerate import PartialState
    except ImportError as error:
        cure = 'pip install "common-kernels[distributed]"'
        raise ImportError(f"several processes need accelerate: {cure}") from error
    on_cpu = device == "cpu" or _on_cpu() or not torch.accelerator.is_available()
    state = PartialState(cpu=on_cpu, timeout=_TIMEOUT)
    return Processes(
        rank=state.process_index, world_size=state.num_processes, local_rank=state.local_process_index
    )


def leave_processes() -> None:
    """Close the process group, if one is open: an open group can crash the process at its exit."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def _on_cpu() -> bool:
    """Whether ``accelerate launch --cpu`` was asked for."""
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
