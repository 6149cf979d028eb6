# SPDX-License-Identifier: Apache-2.0
"""Filling a store: one thread reads images, one computes, one writes, in one process or in many."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from diffeat.capture.select import resolve
from diffeat.images import ImageLike, fit, load_images
from diffeat.store.errors import room_for
from diffeat.store.ledger import Batch, Item, content_key
from diffeat.store.settings import Recipe, Settings

if TYPE_CHECKING:
    from diffeat.capture.select import Names
    from diffeat.extractor import FeatureExtractor
    from diffeat.store.store import FeatureStore

_AHEAD = 2  # batches that are read, and that may wait to be written
OnBroken = Callable[[Item, Exception], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be in a store.

    Attributes:
        images: Paths, Pillow images, arrays or tensors.
        names: Names, globs, presets, means of maps or module paths.
        prompt: For all images, or one per image.
        recipe: How features are made.
        batch_size: Images per pass. Rows that are planned already keep their batches.
    """

    images: Sequence[ImageLike]
    names: Names
    prompt: str | Sequence[str] = ""
    recipe: Recipe = field(default_factory=Recipe)
    batch_size: int = 8


class Processes(Protocol):
    """Which of how many processes this is; accelerate's ``PartialState`` is one."""

    @property
    def process_index(self) -> int:
        """From 0."""
        ...

    @property
    def num_processes(self) -> int:
        """In all."""
        ...

    def wait_for_everyone(self) -> None:
        """Return when all processes have come here."""
        ...


class _Alone:
    process_index = 0
    num_processes = 1

    def wait_for_everyone(self) -> None:
        """There is nobody to wait for."""


def joined_processes() -> Processes:
    """The processes that ``accelerate launch`` or ``torchrun`` started; one if there are none."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return _Alone()
    from accelerate import PartialState

    # the last one may wait long for one with larger batches
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))


@dataclass(slots=True, kw_only=True)
class FillReport:
    """What one process did.

    Attributes:
        images: Different images with prompts that were asked for, in all processes.
        computed: Images that this process computed.
        cached: Images that were complete before.
        broken: Images of this process that could not be read.
        seconds: From start to end.
        busy: Seconds in which this process read, computed and wrote; they run side by side.
    """

    images: int = 0
    computed: int = 0
    cached: int = 0
    broken: int = 0
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


def fill(
    store: FeatureStore,
    extractor: FeatureExtractor,
    job: Job,
    *,
    on_batch: Callable[[int, int], None] | None = None,
    on_broken: OnBroken | None = None,
    processes: Processes | None = None,
) -> FillReport:
    """Compute and write what is missing of a job; every process calls it with the same arguments.

    Args:
        store: Where to.
        extractor: The model.
        job: What.
        on_batch: Called after each computed batch with batches done and batches of this process.
        on_broken: Told of each image that cannot be read, which is then passed over; if ``None`` the first
            such image ends the work.
        processes: Who shares the work; those of the launcher if ``None``.

    Raises:
        LookupError: If a name is unknown.
        StoreError: If the store is of another model or recipe.
        StoreFullError: If there is no room; nothing that was finished is lost.
        ValueError: If an image or the number of prompts does not fit.
    """
    begun = perf_counter()
    if job.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {job.batch_size}")
    state = processes or joined_processes()
    names = _names(extractor, job)
    keyed = _keyed(job)
    images = {(key, prompt): image for image, (key, prompt, _) in zip(job.images, keyed, strict=True)}
    with room_for(store.url):
        if state.process_index == 0:
            store.prepare(Settings.of(extractor, job.recipe))
            store.ledger.plan(keyed, job.batch_size)
        state.wait_for_everyone()
        store.prepare(Settings.of(extractor, job.recipe))
        store.ledger.refresh()
        report, left = _left(store, names, images)
        # nobody writes before all have read what is left
        state.wait_for_everyone()
        pipeline = _Pipeline(store, extractor, job.recipe, images, report, on_broken)
        pipeline.run(left[state.process_index :: state.num_processes], on_batch)
        state.wait_for_everyone()
        store.ledger.refresh()
    report.seconds = perf_counter() - begun
    return report


def _key(item: Item) -> tuple[str, str]:
    return item.key, item.prompt


def _left(
    store: FeatureStore, names: list[str], images: dict[tuple[str, str], ImageLike]
) -> tuple[FillReport, list[tuple[Batch, list[str]]]]:
    """Batches of the job that miss something, with the names that they miss."""
    ledger = store.ledger
    left: list[tuple[Batch, list[str]]] = []
    cached = 0
    for batch in ledger.batches.values():
        mine = tuple(item for item in batch.items if _key(item) in images)
        part, missing = ledger.left(Batch(batch.name, mine), names)
        cached += len(mine) - len(part.items)
        if part.items:
            left.append((part, missing))
    return FillReport(images=len(images), cached=cached), left


def _names(extractor: FeatureExtractor, job: Job) -> list[str]:
    names = [str(name) for name in resolve(extractor.model, job.names).names]
    if len(job.recipe.t) == 1:
        return names
    return [f"{name}@{t}" for t in job.recipe.t for name in names]


def _keyed(job: Job) -> list[tuple[str, str, str]]:
    """Key, prompt and source of every image of a job."""
    prompts = [job.prompt] * len(job.images) if isinstance(job.prompt, str) else list(job.prompt)
    if len(prompts) != len(job.images):
        raise ValueError(
            f"prompt must be one text or one per image, got {len(prompts)} for {len(job.images)} images"
        )
    if not prompts:
        raise ValueError("images must hold at least one image, got none")
    found: list[tuple[str, str, str]] = []
    for image, prompt in zip(job.images, prompts, strict=True):
        key, source = content_key(image)
        found.append((key, prompt, source))
    return found


class _Pipeline:
    """Reads ahead, computes, and writes behind.

    Args:
        store: Where to.
        extractor: The model.
        recipe: How.
        images: The images by key and prompt.
        report: Where times go.
        on_broken: Told of images that cannot be read.
    """

    def __init__(
        self,
        store: FeatureStore,
        extractor: FeatureExtractor,
        recipe: Recipe,
        images: dict[tuple[str, str], ImageLike],
        report: FillReport,
        on_broken: OnBroken | None = None,
    ) -> None:
        self.store = store
        self.extractor = extractor
        self.recipe = recipe
        self.images = images
        self.report = report
        self.on_broken = on_broken

    def run(
        self, batches: Sequence[tuple[Batch, list[str]]], on_batch: Callable[[int, int], None] | None
    ) -> None:
        """Work through batches."""
        reader, writer = ThreadPoolExecutor(1, "read"), ThreadPoolExecutor(1, "write")
        writing: deque[Future[None]] = deque()
        try:
            reading = deque(reader.submit(self._read, batch) for batch, _ in batches[:_AHEAD])
            for done, (planned, names) in enumerate(batches, 1):
                batch, images = reading.popleft().result()
                ahead = batches[done - 1 + _AHEAD : done + _AHEAD]
                reading.extend(reader.submit(self._read, later) for later, _ in ahead)
                self.report.broken += len(planned.items) - len(batch.items)
                if batch.items:
                    values = self._compute(images, batch, names)
                    if len(writing) >= _AHEAD:
                        writing.popleft().result()
                    writing.append(writer.submit(self._write, batch, names, values))
                self.report.computed += len(batch.items)
                if on_batch is not None:
                    on_batch(done, len(batches))
            while writing:
                writing.popleft().result()
        finally:
            reader.shutdown(cancel_futures=True)
            writer.shutdown()  # what is computed is written, also when something else went wrong

    def _read(self, batch: Batch) -> tuple[Batch, list[Tensor]]:
        """The images of a batch, and the batch without those that cannot be read."""
        assert self.store.settings is not None
        found: dict[Item, Tensor] = {}
        with self.report.measured("read"):
            for item in batch.items:
                try:
                    found[item] = fit(load_images(self.images[_key(item)])[0], self.store.settings.size)
                except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all of them
                    if self.on_broken is None:
                        raise
                    self.on_broken(item, error)
        return Batch(batch.name, tuple(found)), list(found.values())

    def _compute(self, images: list[Tensor], batch: Batch, names: list[str]) -> dict[str, Tensor]:
        with self.report.measured("compute"):
            plain = list(dict.fromkeys(name.partition("@")[0] for name in names))
            arguments: dict[str, Any] = self.recipe.arguments()
            prompts = [item.prompt for item in batch.items]
            features = self.extractor(images, plain, prompt=prompts, batch_size=len(images), **arguments)
            if len(self.recipe.t) == 1:
                return dict(features.tensors)
            return {name: value for name, value in features.items() if name in set(names)}

    def _write(self, batch: Batch, names: list[str], values: dict[str, Tensor]) -> None:
        with self.report.measured("write"):
            for name in names:
                self.store.write(name, batch.items, values[name])
            self.store.ledger.mark(batch, names)
