# SPDX-License-Identifier: Apache-2.0
"""Progress of a job on stderr: bars on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pixelsmith.cli.output import seconds_in_words, stderr
from pixelsmith.job.progress import JobProgress

_LINE_EVERY = 60.0  # seconds
_WORDS = {"source": "first picture", "encode": "encode", "denoise": "patches", "decode": "decode"}


class Reporter:
    """Shows one bar for the patches of all stages, and one for what else is going on.

    Args:
        bars: Where they are drawn.
        calls: Patches that the stages are expected to take, each.
    """

    def __init__(self, bars: Progress, calls: list[int]) -> None:
        self.bars = bars
        self.calls = calls
        self._patches: TaskID | None = None
        self._other: TaskID | None = None
        self._other_name = ""
        self._first: tuple[float, int] | None = None
        self._line = time.monotonic()

    def __call__(self, progress: JobProgress) -> None:
        """Show where the job is."""
        if progress.phase == "denoise":
            self._show_patches(progress)
        else:
            self._show_other(progress)

    def _show_patches(self, progress: JobProgress) -> None:
        self._hide_other()
        self.calls[progress.stage] = progress.total
        done, total = sum(self.calls[: progress.stage]) + progress.done, sum(self.calls)
        name = f"{_title(progress)}, step {progress.step + 1} of {progress.num_steps}: patches"
        if self._patches is None:
            # what an earlier run did counts as done, but not for the speed
            self._patches = self.bars.add_task(name, total=total, completed=done)
        self.bars.update(self._patches, description=name, total=total, completed=done)
        now = time.monotonic()
        self._first = self._first or (now, done)
        if not stderr.is_terminal and now - self._line > _LINE_EVERY:
            rate = (done - self._first[1]) / max(now - self._first[0], 1e-9)
            left = f", {seconds_in_words((total - done) / rate)} left" if rate > 0 else ""
            stderr.print(f"{name} {done} of {total}{left}", highlight=False, markup=False, soft_wrap=True)
            self._line = now

    def _show_other(self, progress: JobProgress) -> None:
        name = f"{_title(progress)}: {_WORDS[progress.phase]}" if progress.phase != "write" else "write"
        if self._other is None or name != self._other_name:
            self._hide_other()
            self._other, self._other_name = self.bars.add_task(name, total=progress.total), name
        self.bars.update(self._other, completed=progress.done, total=progress.total)

    def _hide_other(self) -> None:
        if self._other is not None:
            self.bars.remove_task(self._other)
            self._other = None


def _title(progress: JobProgress) -> str:
    return f"stage {progress.stage + 1} of {progress.num_stages}" if progress.num_stages > 1 else "picture"


@contextmanager
def reporting(calls: list[int]) -> Generator[Reporter]:
    """Show the progress of a job while it runs."""
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=stderr,
        disable=not stderr.is_terminal,
        transient=True,
    ) as bars:
        yield Reporter(bars, calls)
