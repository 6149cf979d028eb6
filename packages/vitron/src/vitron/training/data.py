# SPDX-License-Identifier: Apache-2.0
"""Batches in which tasks are mixed by given shares, the same after a restart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset, Sampler

from vitron.data.example import Example
from vitron.model.encoding import Batch, ConversationEncoder, Encoded

__all__ = ["MixedTasks", "VitronData"]


class MixedTasks(Sampler[list[int]]):
    """Batches of a fixed number of dialogues of each task, drawn anew in every round.

    A batch holds every task by its share; what does not come out even is drawn. Each process of a run in
    several takes its own batches. The order depends on seed and step alone, so that a run that goes on sees
    what it would have seen.

    Args:
        tasks: Name of the task of each dialogue.
        batch_size: Dialogues of a batch.
        steps: Batches.
        shares: By task; a task that is not named is left out. Empty: as the data are.
        later: Shares at the last step, of the tasks whose share changes on the way there, evenly.
        seed: Of the order.
        rank: Of this process.
        world: Processes.
        start: Step to begin at.

    Raises:
        ValueError: If a task has no dialogue, or a share is to change of one that has none.
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
        world: int = 1,
        start: int = 0,
    ) -> None:
        names = np.asarray(tasks)
        found = dict(shares or {str(name): float((names == name).sum()) for name in dict.fromkeys(tasks)})
        self.members = {name: np.flatnonzero(names == name) for name in found}
        missing = [name for name, members in self.members.items() if not len(members)]
        if missing:
            raise ValueError(f"there is no dialogue of task {missing[0]}, which the stage asks for")
        unknown = [name for name in later or {} if name not in found]
        if unknown:
            raise ValueError(f"the share of task {unknown[0]} is to change, but it has none")
        ends = (found, {**found, **(later or {})})
        self.first, self.last = (np.array(list(each.values())) / sum(each.values()) for each in ends)
        self.batch_size, self.steps, self.seed = batch_size, steps, seed
        self.rank, self.world, self.start = rank, world, start

    def __len__(self) -> int:
        # the Trainer goes on counting from the step it resumes at, so the length is that of the whole run
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.steps):
            yield self.batch(step)

    def batch(self, step: int) -> list[int]:
        """Return the dialogues of one step."""
        rng = np.random.default_rng((self.seed, step, self.rank, self.world))
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
    """Dialogues for training and validation.

    Args:
        encoder: Encoder that makes batches of them.
        train: Dialogues, as they are or encoded.
        validation: The same, for validation; may be empty.
        batch_size: Of a step.
        steps: In all.
        shares: Of tasks in each batch.
        later: Shares at the last step, where they change.
        seed: Of the order.
        workers: Processes that read ahead.
        parts: A step's dialogues are sorted by length into this many parts, which spares padding; what is
            learnt is the same.
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
        workers: int = 0,
        parts: int = 1,
    ) -> None:
        super().__init__()
        self.encoder, self.train, self.validation = encoder, train, validation
        self.batch_size, self.steps, self.shares, self.later = batch_size, steps, shares, later
        self.seed, self.workers, self.parts = seed, workers, parts

    def _join(self, items: list[Any]) -> list[Batch]:
        encoded = [self.encoder.encode(each) if isinstance(each, Example) else each for each in items]
        encoded.sort(key=lambda each: len(each.ids))
        cuts = [len(encoded) * part // self.parts for part in range(self.parts + 1)]
        return [self.encoder.collate(encoded[low:high]) for low, high in pairwise(cuts) if high > low]

    def train_dataloader(self) -> DataLoader[Any]:
        """Return batches from the step on that the run has come to."""
        trainer = self.trainer
        sampler = MixedTasks(
            getattr(self.train, "tasks", None) or [each.task for each in self.train],
            batch_size=self.batch_size,
            steps=self.steps,
            shares=self.shares,
            later=self.later,
            seed=self.seed,
            rank=0 if trainer is None else trainer.global_rank,
            world=1 if trainer is None else trainer.world_size,
            start=0 if trainer is None else int(getattr(trainer.lightning_module, "resumed_at", 0)),
        )
        return DataLoader(
            _Listed(self.train), batch_sampler=sampler, collate_fn=self._join, num_workers=self.workers
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the dialogues of validation, in order."""
        return DataLoader(
            _Listed(self.validation),
            batch_size=self.batch_size,
            collate_fn=self._join,
            num_workers=self.workers,
        )


class _Listed(Dataset[Any]):
    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]
