# SPDX-License-Identifier: Apache-2.0
"""Batches in which tasks are mixed by given shares, the same after a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast, overload

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from vitron.data.example import Example
from vitron.model.batch import Batch, Encoded
from vitron.model.encoding import ConversationEncoder

__all__ = ["MixedTasks", "VitronData"]


class MixedTasks(Sequence[list[int]]):
    """Batches with a fixed number of conversations of each task, drawn at random.

    Item ``n`` is the batch of step ``n``: every task by its share, fractions at random. Each process has its
    own batches.
    The order depends on seed and step alone, so that a resumed run sees the same batches.

    Args:
        tasks: Task of each conversation.
        batch_size: Conversations per batch.
        steps: Number of batches.
        shares: Share of each task; other tasks are not drawn. Empty: shares of the data.
        later: Shares at the last step, of tasks whose share changes linearly over the run.
        seed: Random seed of the order.
        rank: Rank of this process.
        world_size: Number of processes.

    Raises:
        ValueError: If a task has no conversation, or ``later`` names a task without a share.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        batch_size: int,
        steps: int,
        shares: Mapping[str, float] | None = None,
        later: Mapping[str, float] | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        names = np.asarray(tasks)
        found = dict(shares or {str(name): float((names == name).sum()) for name in dict.fromkeys(tasks)})
        self.members = {name: np.flatnonzero(names == name) for name in found}
        missing = [name for name, members in self.members.items() if not len(members)]
        if missing:
            raise ValueError(f"there is no conversation of task {missing[0]}, which the stage asks for")
        unknown = [name for name in later or {} if name not in found]
        if unknown:
            raise ValueError(f"tasks_later names {unknown[0]}, which has no share")
        ends = (found, {**found, **(later or {})})
        self.first, self.last = (np.array(list(each.values())) / sum(each.values()) for each in ends)
        self.batch_size, self.steps, self.seed = batch_size, steps, seed
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return self.steps

    @overload
    def __getitem__(self, index: int) -> list[int]: ...

    @overload
    def __getitem__(self, index: slice) -> list[list[int]]: ...

    def __getitem__(self, index: int | slice) -> list[int] | list[list[int]]:
        """Return the conversations of a step."""
        steps = range(self.steps)[index]
        return [self._draw(step) for step in steps] if isinstance(steps, range) else self._draw(steps)

    def _draw(self, step: int) -> list[int]:
        rng = np.random.default_rng((self.seed, step, self.rank, self.world_size))
        done = step / self.steps
        wanted = ((1 - done) * self.first + done * self.last) * self.batch_size
        counts = np.floor(wanted).astype(int)
        rest = self.batch_size - counts.sum()
        left = wanted - counts
        if rest:
            extra = rng.choice(len(counts), size=rest, p=left / left.sum())
            np.add.at(counts, extra, 1)
        picked = [
            rng.choice(members, size=count)
            for members, count in zip(self.members.values(), counts, strict=True)
        ]
        return rng.permutation(np.concatenate(picked)).tolist()


class VitronData(pl.LightningDataModule):
    """Conversations for training and validation.

    Args:
        encoder: Encoder that makes batches of them.
        train: Conversations, plain or encoded.
        validation: Conversations for validation; may be empty.
        batch_size: Conversations per step.
        steps: Number of steps.
        shares: Shares of tasks in each batch.
        later: Shares at the last step, of tasks whose share changes.
        seed: Random seed of the order.
        num_workers: Number of data loader processes.
        parts: Number of parts, by length, in which a step's conversations are read, to save padding; the
            gradient is the same.
    """

    def __init__(
        self,
        encoder: ConversationEncoder,
        train: Sequence[Example] | Sequence[Encoded],
        validation: Sequence[Example] | Sequence[Encoded] = (),
        *,
        batch_size: int,
        steps: int,
        shares: Mapping[str, float] | None = None,
        later: Mapping[str, float] | None = None,
        seed: int = 0,
        num_workers: int = 0,
        parts: int = 1,
    ) -> None:
        super().__init__()
        self.encoder, self.train, self.validation = encoder, train, validation
        self.batch_size, self.steps, self.shares, self.later = batch_size, steps, shares, later
        self.seed, self.num_workers, self.parts = seed, num_workers, parts

    def collate(self, items: Sequence[Encoded]) -> Batch:
        """Join conversations of similar length; for subclasses whose batches hold more."""
        return self.encoder.collate(items)

    def _join(self, items: Sequence[Any]) -> list[Batch]:
        encoded = [self.encoder.encode(each) if isinstance(each, Example) else each for each in items]
        encoded.sort(key=lambda each: len(each.ids))
        cuts = [len(encoded) * part // self.parts for part in range(self.parts + 1)]
        return [self.collate(encoded[low:high]) for low, high in pairwise(cuts) if high > low]

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches, from the step at which the run resumes."""
        trainer = self.trainer
        batches = MixedTasks(
            getattr(self.train, "tasks", None) or [each.task for each in self.train],
            batch_size=self.batch_size,
            steps=self.steps,
            shares=self.shares,
            later=self.later,
            seed=self.seed,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )
        module = None if trainer is None else trainer.lightning_module
        return self._loader(self.train, batches, int(getattr(module, "resumed_at", 0)))

    def val_dataloader(self) -> DataLoader[Any]:
        """Return this process's share of the conversations for validation, in order.

        Raises:
            ValueError: If there are fewer of them than processes.
        """
        trainer, total = self.trainer, len(self.validation)
        rank, world_size = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        if 0 < total < world_size:
            raise ValueError(
                f"validation needs a conversation for each process, got {total} for {world_size}"
            )
        mine = range(rank, total, world_size)
        return self._loader(
            self.validation,
            [mine[start : start + self.batch_size] for start in range(0, len(mine), self.batch_size)],
        )

    def _loader(
        self, items: Sequence[Any], batches: Sequence[Sequence[int]], start: int = 0
    ) -> DataLoader[Any]:
        return DataLoader(
            _Batches(items, batches, self._join),
            sampler=_Steps(range(len(batches)), start),
            batch_size=None,
            num_workers=self.num_workers,
            generator=torch.Generator().manual_seed(self.seed),
        )


class _Batches(Dataset[list[Batch]]):
    """Batches of listed conversations by their number."""

    def __init__(
        self,
        items: Sequence[Any],
        batches: Sequence[Sequence[int]],
        join: Callable[[Sequence[Any]], list[Batch]],
    ) -> None:
        self.items, self.batches, self.join = items, batches, join

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> list[Batch]:
        return self.join([self.items[index] for index in self.batches[number]])


class _Steps(DistributedSampler[int]):
    """Numbers of this process's own batches; Lightning would replace any other kind of sampler."""

    def __init__(self, numbers: range, start: int) -> None:
        super().__init__(cast("Dataset[int]", numbers), num_replicas=1, rank=0, shuffle=False)
        self.numbers, self.start = numbers, start

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers[self.start :])

    def __len__(self) -> int:
        # the Trainer counts from the step it resumes at, so the length is that of the whole run
        return len(self.numbers)
