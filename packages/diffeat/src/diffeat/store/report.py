# SPDX-License-Identifier: Apache-2.0
"""Reports of filling a store."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from time import perf_counter
from typing import Literal

from diffeat.images import ImageLike

Status = Literal["done", "skipped", "failed"]
OnBatch = Callable[[int, int], None]
OnItem = Callable[["ItemResult"], None]


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
    status: Status
    seconds: float = 0.0
    error: Exception | None = None


@dataclass(slots=True, kw_only=True)
class FillReport:
    """Report of one process, or of several together.

    Attributes:
        images: Number of distinct images with prompts.
        computed: Number of images that were computed.
        cached: Number of images that were complete before.
        failed: Number of given images that could not be read.
        seconds: Seconds from start to end.
        busy: Seconds in which processes read, computed and wrote; they run side by side.
    """

    images: int = 0
    computed: int = 0
    cached: int = 0
    failed: int = 0
    seconds: float = 0.0
    busy: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "compute": 0.0, "write": 0.0})

    @classmethod
    def of_all(cls, reports: Sequence[FillReport]) -> FillReport:
        """The report of all processes: their sums, the longest time, and mean busy seconds."""
        counts = {
            name: sum(getattr(each, name) for each in reports)
            for name in ("images", "computed", "cached", "failed")
        }
        busy = {stage: sum(each.busy[stage] for each in reports) / len(reports) for stage in reports[0].busy}
        return cls(**counts, seconds=max(each.seconds for each in reports), busy=busy)

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


class Outcomes:
    """Tells the outcome of every given image once; the same image with the same prompt counts once.

    Args:
        report: Counts the outcomes.
        on_item: Hears of every given image.
    """

    def __init__(self, report: FillReport, on_item: OnItem | None) -> None:
        self._report = report
        self._on_item = on_item
        self._lock = Lock()
        self._waiting: dict[tuple[str, str], list[ImageLike]] = {}
        self._known: dict[tuple[str, str], tuple[Status, float, Exception | None]] = {}

    def is_new(self, key: tuple[str, str], image: ImageLike) -> bool:
        """Note a given image, and return whether it is the first with its key."""
        with self._lock:
            known = self._known.get(key)
            is_new = known is None and key not in self._waiting
            if known is None:
                self._waiting.setdefault(key, []).append(image)
            self._report.images += is_new
        if known is not None:
            self._tell(image, *known)
        return is_new

    def settle(
        self, key: tuple[str, str], status: Status, seconds: float = 0.0, error: Exception | None = None
    ) -> None:
        """Tell the outcome of all images with a key, those that come later included."""
        with self._lock:
            self._known[key] = (status, seconds, error)
            images = self._waiting.pop(key)
            self._report.computed += status == "done"
            self._report.cached += status == "skipped"
        for image in images:
            self._tell(image, status, seconds, error)

    def unreadable(self, image: ImageLike, error: Exception) -> None:
        """Tell that a file cannot be opened; without a listener it ends the work."""
        if self._on_item is None:
            raise error
        self._tell(image, "failed", 0.0, error)

    def _tell(self, image: ImageLike, status: Status, seconds: float, error: Exception | None) -> None:
        if status == "failed":
            if self._on_item is None:
                assert error is not None
                raise error
            self._report.failed += 1
        if self._on_item is not None:
            self._on_item(ItemResult(image=image, status=status, seconds=seconds, error=error))
