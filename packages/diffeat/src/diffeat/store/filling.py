# SPDX-License-Identifier: Apache-2.0
"""Filling a store: one thread reads images, one computes, one writes, in one process or in many."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from common_kernels.runtime.processes import Processes
from torch import Tensor

from diffeat.hooks.collector import Storage
from diffeat.images import ImageLike, fit, load_images
from diffeat.names.grammar import Names
from diffeat.names.request import resolve
from diffeat.options import ExtractionOptions
from diffeat.store.arrays import FeatureArrays
from diffeat.store.errors import disk_errors
from diffeat.store.ledger import Batch, Item, Ledger, content_key
from diffeat.store.settings import Settings, StoredDtype

if TYPE_CHECKING:
    from diffeat.extractor import FeatureExtractor

_AHEAD = 2  # batches that are read, and that may wait to be written
OnBatch = Callable[[int, int], None]
OnItem = Callable[["ItemResult"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Requested content of a store.

    Attributes:
        images: Paths, Pillow images, arrays or tensors.
        names: Names, globs, presets, means of maps or module paths.
        options: Options of the extraction.
        dtype: Dtype on disk.
        batch_size: Images per pass. Rows that are planned already keep their batches.
        overwrite: Whether to discard the content of the store.
    """

    images: Sequence[ImageLike]
    names: Names
    options: ExtractionOptions
    dtype: StoredDtype
    batch_size: int
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if not len(self.images):
            raise ValueError("images must hold at least one image, got none")


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """Outcome of one image.

    Attributes:
        image: The given image.
        status: Whether its features were computed, existed before, or failed.
        seconds: Seconds of its batch, divided by the images of the batch.
        error: Reason of the failure.
    """

    image: ImageLike
    status: Literal["done", "skipped", "failed"]
    seconds: float = 0.0
    error: Exception | None = None


@dataclass(slots=True, kw_only=True)
class FillReport:
    """Report of one process.

    Attributes:
        images: Number of distinct requested images with prompts, in all processes.
        computed: Number of images that this process computed.
        cached: Number of images that were complete before.
        failed: Number of images of this process that could not be read.
        seconds: Seconds from start to end.
        busy: Seconds in which this process read, computed and wrote; they run side by side.
    """

    images: int = 0
    computed: int = 0
    cached: int = 0
    failed: int = 0
    seconds: float = 0.0
    busy: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "compute": 0.0, "write": 0.0})

    @property
    def shares(self) -> dict[str, float]:
        """Busy shares of the whole time, in [0, 1]; their sum exceeds 1 where work overlaps."""
        return {name: busy / self.seconds if self.seconds else 0.0 for name, busy in self.busy.items()}

    @contextmanager
    def measured(self, stage: str) -> Generator[None]:
        """Add the time of a block to a stage."""
        start = perf_counter()
        try:
            yield
        finally:
            self.busy[stage] += perf_counter() - start


class Filling:
    """Computes and writes the missing part of a job; every process runs it with the same arguments.

    Args:
        arrays: Values of the store.
        ledger: Plans and marks of the store.
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
        arrays: FeatureArrays,
        ledger: Ledger,
        extractor: FeatureExtractor,
        job: Job,
        on_item: OnItem | None = None,
    ) -> None:
        self._arrays = arrays
        self._ledger = ledger
        self._extractor = extractor
        self._job = job
        self._on_item = on_item
        names = [str(name) for name in resolve(extractor.model, job.names).names]
        steps = job.options.timesteps
        self._names = names if len(steps) == 1 else [f"{name}@{step}" for step in steps for name in names]
        self._images: dict[tuple[str, str], list[ImageLike]] = {}  # duplicates count once
        self._planned: list[tuple[str, str, str]] = []  # key, prompt and source of every image
        self._unreadable: list[tuple[ImageLike, Exception]] = []
        for image, prompt in zip(job.images, job.options.prompts(len(job.images)), strict=True):
            try:
                key, source = content_key(image)
            except OSError as error:
                if on_item is None:
                    raise
                self._unreadable.append((image, error))
                continue
            self._images.setdefault((key, prompt), []).append(image)
            self._planned.append((key, prompt, source))
        self._report = FillReport(images=len(self._images))

    def run(self, processes: Processes, on_batch: OnBatch | None = None) -> FillReport:
        """Run this process's shard.

        Args:
            processes: The processes that share the work.
            on_batch: Called after each computed batch with batches done and batches of this process.

        Raises:
            StoreError: If the store is of another model or of other options.
            StoreFullError: If the disk is full; finished batches are kept.
        """
        begun = perf_counter()
        settings = Settings.of(self._extractor, self._job.options, self._job.dtype)
        with disk_errors(self._arrays.url):
            if processes.is_main:
                # a failed first run leaves settings and nothing else
                is_stale = not self._ledger.names and self._arrays.settings not in (None, settings)
                if self._job.overwrite or is_stale:
                    self._ledger.clear()
                    self._arrays.clear()
                self._arrays.prepare(settings)
                share = -(-len(self._planned) // processes.world_size)  # so that no process is idle
                self._ledger.plan(self._planned, max(1, min(self._job.batch_size, share)))
            processes.wait()
            self._ledger.refresh()
            self._arrays.refresh()
            missing, complete = self._missing()
            if processes.is_main:  # one process is enough for these
                for image, error in self._unreadable:
                    self._tell([image], "failed", error=error)
                for item in complete:
                    self._tell(self._images[item.key_and_prompt], "skipped")
            # no process writes before all have read the missing part
            processes.wait()
            self._work(processes.shard(missing), on_batch)
            processes.wait()
            self._ledger.refresh()
        self._report.seconds = perf_counter() - begun
        return self._report

    def _missing(self) -> tuple[list[tuple[Batch, list[str]]], list[Item]]:
        """Batches of the job that miss something, with the names that they miss; and complete images."""
        missing: list[tuple[Batch, list[str]]] = []
        complete: list[Item] = []
        for batch in self._ledger.batches.values():
            wanted = tuple(item for item in batch.items if item.key_and_prompt in self._images)
            part, names = self._ledger.left(Batch(batch.name, wanted), self._names)
            complete += [item for item in wanted if item not in part.items]
            if part.items:
                missing.append((part, names))
        self._report.cached = len(complete)
        return missing, complete

    def _tell(
        self,
        images: Sequence[ImageLike],
        status: Literal["done", "skipped", "failed"],
        *,
        seconds: float = 0.0,
        error: Exception | None = None,
    ) -> None:
        self._report.failed += status == "failed"
        if self._on_item is not None:
            for image in images:
                self._on_item(ItemResult(image=image, status=status, seconds=seconds, error=error))

    def _work(self, batches: Sequence[tuple[Batch, list[str]]], on_batch: OnBatch | None) -> None:
        """Read ahead, compute, and write behind; callbacks see the context variables of the caller."""
        reader, writer = ThreadPoolExecutor(1, "read"), ThreadPoolExecutor(1, "write")
        writing: deque[Future[None]] = deque()
        try:
            reading = deque(
                reader.submit(copy_context().run, self._read, batch) for batch, _ in batches[:_AHEAD]
            )
            for done, (planned, names) in enumerate(batches, 1):
                began = perf_counter()
                batch, images = reading.popleft().result()
                ahead = batches[done - 1 + _AHEAD : done + _AHEAD]
                reading.extend(reader.submit(copy_context().run, self._read, later) for later, _ in ahead)
                if batch.items:
                    values = self._compute(images, batch, names)
                    if len(writing) >= _AHEAD:
                        writing.popleft().result()
                    seconds = (perf_counter() - began) / len(planned.items)
                    writing.append(
                        writer.submit(copy_context().run, self._write, batch, names, values, seconds)
                    )
                self._report.computed += len(batch.items)
                if on_batch is not None:
                    on_batch(done, len(batches))
            while writing:
                writing.popleft().result()
        finally:
            reader.shutdown(cancel_futures=True)
            writer.shutdown()  # what is computed is written, also when something else went wrong

    def _read(self, batch: Batch) -> tuple[Batch, list[Tensor]]:
        """The images of a batch, and the batch without those that cannot be read."""
        assert self._arrays.settings is not None
        found: dict[Item, Tensor] = {}
        with self._report.measured("read"):
            for item in batch.items:
                try:
                    (image,) = load_images(self._images[item.key_and_prompt][:1])
                    found[item] = fit(image, self._arrays.settings.size)
                except ValueError as error:
                    if self._on_item is None:
                        raise
                    self._tell(self._images[item.key_and_prompt], "failed", error=error)
        return Batch(batch.name, tuple(found)), list(found.values())

    def _compute(self, images: list[Tensor], batch: Batch, names: list[str]) -> dict[str, Tensor]:
        with self._report.measured("compute"):
            plain = list(dict.fromkeys(name.partition("@")[0] for name in names))
            options = replace(self._job.options, prompt=tuple(item.prompt for item in batch.items))
            # values are not cast here: what does not fit the dtype on disk is an error of the store
            features = self._extractor(
                images, plain, options, batch_size=len(images), storage=Storage(device="cpu")
            )
            return dict(features.tensors)

    def _write(self, batch: Batch, names: list[str], values: dict[str, Tensor], seconds: float) -> None:
        with self._report.measured("write"):
            for name in names:
                self._arrays.write(name, batch.items, values[name], self._ledger.num_rows)
            self._ledger.mark(batch, names)
        for item in batch.items:
            self._tell(self._images[item.key_and_prompt], "done", seconds=seconds)
