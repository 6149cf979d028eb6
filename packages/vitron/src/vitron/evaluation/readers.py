# SPDX-License-Identifier: Apache-2.0
"""Data sets for evaluation: samples and the folder of their files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from vitron.data.converters import read_layout
from vitron.data.example import Example
from vitron.data.files import FILE, read_example, read_samples
from vitron.data.schema import Sample
from vitron.errors import DataError

__all__ = ["Item", "read_items"]


@dataclass(frozen=True, slots=True)
class Item:
    """One sample of a data set.

    Attributes:
        sample: Sample of a line or of a public layout.
        folder: Folder of its files.
    """

    sample: Sample
    folder: Path

    @property
    def turn(self) -> int:
        """Turn that is answered, from 1: the number of user messages."""
        return sum(message.role == "user" for message in self.sample.messages)

    @property
    def example(self) -> Example:
        """Read the sample with its media, the input of a model.

        Raises:
            DataError: If a file cannot be read or does not fit.
        """
        return read_example(self.sample, self.folder)


def read_items(
    source: Path,
    task: str,
    *,
    layout: str | None = None,
    split: str | None = None,
    limit: int | None = None,
) -> list[Item]:
    """Return the samples of a task, in order; media are read on access.

    Args:
        source: A folder with ``data.jsonl``, or a data set in a public layout.
        task: Task; samples of other tasks are skipped.
        layout: One of :data:`vitron.data.converters.LAYOUTS`; the format of vitron if ``None``.
        split: Part of the data set; all if ``None``.
        limit: Number of samples, the first ones; all if ``None``.

    Raises:
        DataError: If there are none, or the data cannot be read.
    """
    own = layout is None and ((source / FILE).is_file() or source.suffix == ".jsonl")
    folder = source if source.is_dir() else source.parent
    if not own and layout is None:
        raise DataError(f"{source} holds no {FILE}: give its public layout")
    found = _own(source, task, split) if own else _foreign(source, str(layout), split)
    items = [Item(sample, folder) for sample in islice(found, limit)]
    if not items:
        tasks = sorted({sample.task for _, sample in read_samples(source)}) if own else []
        others = f", only for {', '.join(tasks)}" if tasks and task not in tasks else ""
        raise DataError(f"{source} holds no samples for {task}{others}")
    return items


def _own(source: Path, task: str, split: str | None) -> Iterator[Sample]:
    for _, sample in read_samples(source):
        if sample.task == task and split in (None, sample.split):
            yield sample


def _foreign(source: Path, layout: str, split: str | None) -> Iterator[Sample]:
    options = {} if split is None else {"split": split}
    yield from read_layout(layout, source, **options)
