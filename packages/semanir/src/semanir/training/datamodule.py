# SPDX-License-Identifier: Apache-2.0
"""Data for the Lightning Trainer, exact wherever a run resumes and on however many processes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, default_collate

from semanir.data.crops import CropOptions, Crops, WholeImages
from semanir.data.folders import ImagePair, PairedFolders, find_images, find_pairs
from semanir.data.shards import find_in_shards
from semanir.degradations.kinds import Degradation


class SemanIRData(pl.LightningDataModule):
    """Crops for training and images for validation, from plain and paired folders.

    Batch ``b`` holds samples ``b * world_size * batch_size`` and following, shared out among the processes;
    what a sample is follows from its number, see :class:`semanir.data.Crops`.

    Args:
        train: Folders of clean images, degraded on the fly.
        train_pairs: Paired folders.
        train_shards: Tar files in the layout of WebDataset, see :func:`semanir.data.shards.find_in_shards`.
        degradation: Makes the degraded images of ``train`` and ``validation``.
        validation: Folders of clean images to validate on.
        validation_pairs: Paired folders to validate on.
        validation_size: Side of the centre crop to validate on, in pixels; whole images if ``None``.
        crops: Sizes and seed.
        batch_size: Crops per step and process.
        num_workers: Processes that read, at most one per processor; they stay between epochs.
    """

    def __init__(
        self,
        train: Sequence[str] = (),
        train_pairs: Sequence[PairedFolders] = (),
        train_shards: Sequence[str] = (),
        degradation: Degradation | None = None,
        validation: Sequence[str] = (),
        validation_pairs: Sequence[PairedFolders] = (),
        validation_size: int | None = None,
        crops: CropOptions = CropOptions(),  # noqa: B008 - frozen
        batch_size: int = 8,
        num_workers: int = 4,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if num_workers < 0:
            raise ValueError(f"num_workers must be at least 0, got {num_workers}")
        self.sources, self.shards = (tuple(train), tuple(train_pairs)), tuple(train_shards)
        self.validation_sources = (tuple(validation), tuple(validation_pairs))
        self.degradation, self.validation_size, self.crops = degradation, validation_size, crops
        self.batch_size, self.num_workers = batch_size, num_workers
        self._train: Crops | None = None
        self._validation: WholeImages | None = None

    def setup(self, stage: str) -> None:
        """Find the files, and name those that cannot be used.

        Raises:
            ValueError: If there is nothing to train on, or images cannot be used.
        """
        if stage == "fit" and self._train is None:
            found = self._find(*self.sources, least=self.crops.patch_size)
            found += find_in_shards(self.shards) if self.shards else []
            if not found:
                raise ValueError(
                    "nothing to train on: name folders in data.train or data.train_pairs, or tar files in "
                    "data.train_shards"
                )
            self._train = Crops(found, self.degradation, self.crops)
        if self._validation is None:
            found = self._find(*self.validation_sources, least=self.crops.scale)
            if found:
                self._validation = WholeImages(found, self.degradation, self.crops, size=self.validation_size)

    def _find(
        self, folders: Sequence[str], paired: Sequence[PairedFolders], *, least: int
    ) -> list[ImagePair]:
        scale = self.crops.scale
        plain = find_images(folders, least=least * scale) if folders else []
        return plain + (find_pairs(paired, scale=scale, least=least) if paired else [])

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the batches of this process, from the one at which the run stands."""
        assert self._train is not None, "Lightning calls setup first"
        rank, world_size = self._place()
        batches = _Batches(self._train, self.batch_size, rank, world_size)
        return self._loader(batches, _BatchNumbers(len(batches), self.trainer))

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return this process's share of the images, one at a time, as they differ in size."""
        if self._validation is None:
            return []
        rank, world_size = self._place()
        numbers = range(rank, len(self._validation), world_size)
        return DataLoader(
            self._validation,
            batch_size=1,
            sampler=_Numbers(numbers),
            num_workers=min(self._workers(), len(numbers)),
            generator=torch.Generator().manual_seed(0),
        )

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _workers(self) -> int:
        # samples do not depend on their number, and more than there are processors only wait
        return min(self.num_workers, os.cpu_count() or 1)

    def _loader(self, batches: Dataset[Any], numbers: DistributedSampler[int]) -> DataLoader[Any]:
        return DataLoader(
            batches,
            sampler=numbers,
            batch_size=None,
            num_workers=self._workers(),
            # a small folder has short epochs, and processes take seconds to start
            persistent_workers=self._workers() > 0,
            pin_memory=torch.accelerator.is_available(),
            generator=torch.Generator().manual_seed(self.crops.seed),
        )


class _Batches(Dataset[tuple[Tensor, Tensor]]):
    """The batches of one process by their number, which only grows."""

    def __init__(self, crops: Crops, batch_size: int, rank: int, world_size: int) -> None:
        self.crops, self.batch_size, self.rank, self.world_size = crops, batch_size, rank, world_size

    def __len__(self) -> int:
        return max(1, len(self.crops) // (self.batch_size * self.world_size))

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        first = (number * self.world_size + self.rank) * self.batch_size
        samples = [self.crops[first + offset] for offset in range(self.batch_size)]
        return cast("tuple[Tensor, Tensor]", tuple(default_collate(samples)))


class _Numbers(DistributedSampler[int]):
    """Numbers that are this process's own; Lightning would replace any other kind of sampler."""

    def __init__(self, numbers: range) -> None:
        super().__init__(cast("Dataset[int]", numbers), num_replicas=1, rank=0, shuffle=False)
        self.numbers = numbers

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)


class _BatchNumbers(_Numbers):
    """One epoch of batch numbers, beginning with the first that was not yet trained on."""

    def __init__(self, count: int, trainer: pl.Trainer | None) -> None:
        super().__init__(range(count))
        self.trainer = trainer

    def __iter__(self) -> Iterator[int]:
        done = 0
        if self.trainer is not None:
            # counted over all epochs, and restored from a checkpoint before the data are asked for
            progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
            done = int(progress.processed)
        return iter(range(done, done + len(self.numbers)))
