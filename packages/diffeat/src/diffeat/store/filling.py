# SPDX-License-Identifier: Apache-2.0
"""Filling a store: one thread reads images, one computes, one writes, in one process or in many."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING

from common_kernels.runtime.processes import Processes
from torch import Tensor

from diffeat.hooks.collector import Storage
from diffeat.images import ImageLike, fit, load_images
from diffeat.names.grammar import Names
from diffeat.names.request import resolve
from diffeat.options import ExtractionOptions
from diffeat.store.arrays import FeatureArrays
from diffeat.store.errors import StoreError, disk_errors
from diffeat.store.ledger import Item, Ledger, content_key
from diffeat.store.options import StoreOptions
from diffeat.store.parts import Parts
from diffeat.store.place import Place
from diffeat.store.reduction import Reduction
from diffeat.store.report import FillReport, OnBatch, OnItem, Outcomes
from diffeat.store.settings import Settings

if TYPE_CHECKING:
    from diffeat.extractor import FeatureExtractor

WRITER = "writer.lock"
_AHEAD = 2  # batches that are read, and that may wait to be written
_PCA_IMAGES = 64  # at least, if there are as many
_SLACK = 4  # batches per process by which processes may lie apart before rows are moved to the arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Requested content of a store.

    Attributes:
        images: Paths, Pillow images, arrays or tensors.
        names: Names, globs, presets, means of maps or module paths.
        options: Options of the extraction.
        storage: What is kept of the features.
        batch_size: Images per pass.
        overwrite: Whether to discard the content of the store.
    """

    images: Sequence[ImageLike]
    names: Names
    options: ExtractionOptions
    storage: StoreOptions
    batch_size: int
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if not len(self.images):
            raise ValueError("images must hold at least one image, got none")


@dataclass(frozen=True, slots=True)
class _Batch:
    """Images that are computed together, with the activations that at least one of them misses."""

    items: list[Item]
    images: list[Tensor]
    names: list[str]


class Filling:
    """Computes and writes the missing part of a job; every process runs it with the same arguments.

    One run writes a store at a time, the others wait. A batch is a range of the given images, so that a
    killed run that resumes with the same images and batch size leaves the same values as an uninterrupted
    one: the last bits of features depend on the other images of a batch.

    Args:
        place: Folder of the store.
        ledger: Rows and finished activations of the store.
        arrays: Values of the store.
        extractor: The model.
        job: Images and names that the store is to hold.
        on_item: Called with each image that was done, skipped or failed; if ``None`` the first image that
            cannot be read ends the work.

    Raises:
        LookupError: If a name is unknown.
        OSError: If an image cannot be read.
        ValueError: If the number of prompts does not fit.
    """

    def __init__(
        self,
        place: Place,
        ledger: Ledger,
        arrays: FeatureArrays,
        extractor: FeatureExtractor,
        job: Job,
        on_item: OnItem | None = None,
    ) -> None:
        self._place, self._ledger, self._arrays = place, ledger, arrays
        self._parts = Parts(place, ledger, arrays)
        self._reduction = Reduction(place, job.storage)
        self._extractor = extractor
        self._job = job
        names = [str(name) for name in resolve(extractor.model, job.names).names]
        steps = job.options.timesteps
        self._names = names if len(steps) == 1 else [f"{name}@{step}" for step in steps for name in names]
        self._prompts = job.options.prompts(len(job.images))
        self._keys: dict[int, tuple[str, str] | OSError] = {}  # key and source, or why there is none
        self._report = FillReport()
        self._outcomes = Outcomes(self._report, on_item)

    def run(self, processes: Processes, on_batch: OnBatch | None = None) -> FillReport:
        """Run this process's shard.

        Args:
            processes: The processes that share the work.
            on_batch: Called after each batch with batches done and batches of this process.

        Raises:
            StoreError: If the store is of another model or of other options, or processes cannot share it.
            StoreFullError: If the disk is full; finished batches are kept.
        """
        begun = perf_counter()
        settings = Settings.of(self._extractor, self._job.options, self._job.storage)
        if processes.world_size > 1 and not self._place.is_local:
            raise StoreError(
                f"{self._place.url} has no locks, so one process must write it: give a local folder"
            )
        # processes that are not connected trust the ledger alone; they cannot wait for the first of them
        is_locking = processes.is_main and (processes.world_size == 1 or processes.connected)
        with disk_errors(self._place.url), self._place.locked(WRITER) if is_locking else nullcontext():
            try:
                if processes.is_main:
                    self._prepare(settings, is_alone=is_locking)
                processes.wait()
                self._ledger.refresh()
                self._arrays.refresh()
                batches = self._share(processes)
                self._work(batches, on_batch, slack=_SLACK * processes.world_size)
                processes.wait()
                if processes.is_main:
                    self._parts.move()
                self._ledger.copy()
                processes.wait()
                self._arrays.refresh()
            finally:
                if is_locking and not self._ledger.names:  # a failed first run leaves nothing behind
                    self._discard_values()
                    self._ledger.remove()
                    self._place.remove_empty()
        self._report.seconds = perf_counter() - begun
        return self._report

    def _prepare(self, settings: Settings, *, is_alone: bool) -> None:
        """Create the store, and fit what the first batch needs."""
        self._ledger.refresh()
        self._arrays.refresh()
        is_stale = not self._ledger.names and self._arrays.settings not in (None, settings)
        if self._job.overwrite or is_stale:
            self._ledger.clear()
            self._discard_values()
        self._arrays.prepare(settings)
        if is_alone:
            self._parts.clean()
        if missing := self._reduction.missing(self._names):
            self._fit(missing)

    def _discard_values(self) -> None:
        self._arrays.clear()
        self._parts.clear()
        self._reduction.clear()

    def _fit(self, names: list[str]) -> None:
        """Fit principal components to images that are spread evenly."""
        assert self._job.storage.pca is not None
        count = len(self._job.images)
        wanted = (
            _PCA_IMAGES if self._job.storage.pool is None else max(_PCA_IMAGES, 4 * self._job.storage.pca)
        )
        found: list[Tensor] = []
        prompts: list[str] = []
        for index in (i * count // min(wanted, count) for i in range(min(wanted, count))):
            try:
                found.append(self._load(index))
                prompts.append(self._prompts[index])
            except (ValueError, OSError):
                continue  # told when its batch is read
        values: dict[str, list[Tensor]] = {name: [] for name in names}
        for start in range(0, len(found), self._job.batch_size):
            part = slice(start, start + self._job.batch_size)
            features = self._compute(found[part], prompts[part], names)
            for name in names:
                values[name].append(self._reduction.pooled(name, features[name]))
        if found:
            self._reduction.fit(values)

    def _share(self, processes: Processes) -> Sequence[range]:
        """Ranges of the images of this process; several processes agree on all rows first."""
        count = len(self._job.images)
        size = max(1, min(self._job.batch_size, -(-count // processes.world_size)))  # so that none is idle
        ranges = [range(start, min(start + size, count)) for start in range(0, count, size)]
        mine = processes.shard(ranges)
        if processes.world_size == 1:
            return mine
        hashed = mine if processes.connected else ranges
        own = {index: self._key(index) for part in hashed for index in part}
        for found in processes.gather(own):
            self._keys.update(found)
        if processes.is_main or not processes.connected:
            keys = [(key, index) for index, key in sorted(self._keys.items()) if not isinstance(key, OSError)]
            self._ledger.plan((key, self._prompts[index], source) for (key, source), index in keys)
        processes.wait()
        return mine

    def _key(self, index: int) -> tuple[str, str] | OSError:
        if index not in self._keys:
            try:
                self._keys[index] = content_key(self._job.images[index])
            except OSError as error:
                self._keys[index] = error
        return self._keys[index]

    def _load(self, index: int) -> Tensor:
        assert self._arrays.settings is not None
        (image,) = load_images([self._job.images[index]])
        return fit(image, self._arrays.settings.size)

    def _work(self, ranges: Sequence[range], on_batch: OnBatch | None, *, slack: int) -> None:
        """Read ahead, compute, and write behind; callbacks see the context variables of the caller."""
        reader, writer = ThreadPoolExecutor(1, "read"), ThreadPoolExecutor(1, "write")
        writing: deque[Future[None]] = deque()
        try:
            reading = deque(reader.submit(copy_context().run, self._read, part) for part in ranges[:_AHEAD])
            for done, _ in enumerate(ranges, 1):
                began = perf_counter()
                batch = reading.popleft().result()
                ahead = ranges[done - 1 + _AHEAD : done + _AHEAD]
                reading.extend(reader.submit(copy_context().run, self._read, later) for later in ahead)
                if batch.items:
                    prompts = [item.prompt for item in batch.items]
                    with self._report.measured("compute"):
                        values = self._compute(batch.images, prompts, batch.names)
                    if len(writing) >= _AHEAD:
                        writing.popleft().result()
                    seconds = (perf_counter() - began) / len(batch.items)
                    below = batch.items[0].row - slack * self._job.batch_size
                    writing.append(
                        writer.submit(copy_context().run, self._write, batch, values, seconds, below)
                    )
                if on_batch is not None:
                    on_batch(done, len(ranges))
            while writing:
                writing.popleft().result()
        finally:
            reader.shutdown(cancel_futures=True)
            writer.shutdown()  # what is computed is written, also when something else went wrong

    def _read(self, indices: range) -> _Batch:
        """The images of a range that miss something and can be read."""
        with self._report.measured("read"):
            new = self._new(indices)
            planned = self._ledger.plan(identity for _, identity in new)
            items: list[Item] = []
            images: list[Tensor] = []
            gaps: set[str] = set()
            for (index, _), (item, have) in zip(new, planned, strict=True):
                if not (gap := set(self._names) - have):
                    self._outcomes.settle(item.key_and_prompt, "skipped")
                    continue
                try:
                    images.append(self._load(index))
                except (ValueError, OSError) as error:
                    self._outcomes.settle(item.key_and_prompt, "failed", error=error)
                    continue
                items.append(item)
                gaps |= gap
        return _Batch(items, images, [name for name in self._names if name in gaps])

    def _new(self, indices: range) -> list[tuple[int, tuple[str, str, str]]]:
        """Images that come for the first time, with key, prompt and source."""
        found: list[tuple[int, tuple[str, str, str]]] = []
        for index in indices:
            key, image, prompt = self._key(index), self._job.images[index], self._prompts[index]
            if isinstance(key, OSError):
                self._outcomes.unreadable(image, key)
            elif self._outcomes.is_new((key[0], prompt), image):
                found.append((index, (key[0], prompt, key[1])))
        return found

    def _compute(self, images: list[Tensor], prompts: Sequence[str], names: list[str]) -> dict[str, Tensor]:
        plain = list(dict.fromkeys(name.partition("@")[0] for name in names))
        options = replace(self._job.options, prompt=tuple(prompts))
        # values are not cast here: what does not fit the dtype on disk is an error of the store
        features = self._extractor(
            images, plain, options, batch_size=len(images), storage=Storage(device="cpu")
        )
        return dict(features.tensors)

    def _write(self, batch: _Batch, values: dict[str, Tensor], seconds: float, below: int) -> None:
        with self._report.measured("write"):
            stored = {}
            for name in batch.names:
                stored |= self._reduction.encode(name, values[name])
            self._parts.write(batch.items, batch.names, stored)
            self._parts.move(below=below)
        for item in batch.items:
            self._outcomes.settle(item.key_and_prompt, "done", seconds)
