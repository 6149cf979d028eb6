# SPDX-License-Identifier: Apache-2.0
"""Data sets on disk, for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, overload

import pytorch_lightning as pl

from vitron.data.conditions import calls_of, prompt_of, read_conditions
from vitron.data.example import Example
from vitron.data.files import read_example, read_samples
from vitron.data.schema import Sample
from vitron.model.encoding import ConversationEncoder
from vitron.model.hf.configuration import VitronConfig
from vitron.training.data import VitronData
from vitron.training.module import VitronModule

__all__ = ["Examples", "FolderData"]


class Examples(Sequence[Example]):
    """Conversations of a data set with its stored conditions; media are read on access.

    Args:
        source: Folder with ``data.jsonl``, or the file.

    Raises:
        DataError: If a line is no sample.
    """

    def __init__(self, source: Path) -> None:
        self.folder = source if source.is_dir() else source.parent
        self.samples: list[Sample] = [sample for _, sample in read_samples(source)]
        if not self.samples:
            raise ValueError(f"{source} holds no samples")
        self.tasks = [sample.task for sample in self.samples]
        self.conditions = read_conditions(source)

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self._read(sample) for sample in self.samples[index]]
        return self._read(self.samples[index])

    def _read(self, sample: Sample) -> Example:
        example = read_example(sample, self.folder)
        if not self.conditions:
            return example
        prompts = {number: (call.module, prompt_of(call)) for number, call in enumerate(calls_of(sample))}
        found = {
            number: self.conditions[module][prompt]
            for number, (module, prompt) in prompts.items()
            if module in self.conditions and prompt in self.conditions[module]
        }
        return replace(example, conditions=found)


class FolderData(pl.LightningDataModule):
    """Data sets on disk for a Trainer of your own, as LightningCLI builds it; the module brings all else.

    Batch size, steps and tasks are those of the module's stage, the tokens those of its processor.

    Args:
        data: Folder of a data set.
        validation: Folder of a data set for validation.
        seed: Random seed of the order.
        num_workers: Number of data loader processes.
        micro_batches: Number of parts in which the conversations of a step are read.
    """

    def __init__(
        self,
        data: Path,
        validation: Path | None = None,
        *,
        seed: int = 0,
        num_workers: int = 0,
        micro_batches: int = 1,
    ) -> None:
        super().__init__()
        self.data, self.validation, self.seed = Path(data), validation, seed
        self.num_workers, self.micro_batches = num_workers, micro_batches
        self._inner: VitronData | None = None

    def setup(self, stage: str) -> None:
        """Read the data sets.

        Raises:
            ValueError: If the module was built from a model in memory and so has no processor.
        """
        module = getattr(self.trainer, "lightning_module", None)
        if not isinstance(module, VitronModule) or module.processor is None:
            raise ValueError("FolderData needs a VitronModule that was built from the name of a model")
        settings = module.stage.optimisation
        self._inner = VitronData(
            ConversationEncoder(module.processor, cast("VitronConfig", module.model.config)),
            Examples(self.data),
            Examples(Path(self.validation)) if self.validation is not None else (),
            batch_size=settings.batch_size,
            steps=settings.steps,
            shares=module.stage.tasks,
            later=module.stage.tasks_later,
            seed=self.seed,
            num_workers=self.num_workers,
            parts=self.micro_batches,
        )
        self._inner.trainer = self.trainer

    def train_dataloader(self) -> Any:
        """Return batches, from the step at which the run resumes."""
        assert self._inner is not None
        return self._inner.train_dataloader()

    def val_dataloader(self) -> Any:
        """Return this process's share of the conversations for validation, in order."""
        assert self._inner is not None
        return self._inner.val_dataloader()
