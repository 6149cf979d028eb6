# SPDX-License-Identifier: Apache-2.0
"""Estimates, progress and results of a job: progress bars on a terminal, a line per minute in a log."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from common_kernels.runtime.cli import emit, progress_bars, say, show, stderr, warn
from common_kernels.runtime.files import format_bytes

from pixelsmith.io.writers import check_output, output_files, writer_name
from pixelsmith.job import Estimate, JobProgress, JobResult, JobSpec, estimate
from pixelsmith.job.estimates import check_disk

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from pixelsmith.cli.options import JobOutput
    from pixelsmith.core.model import JobModel

_LINE_EVERY = 60.0  # seconds
_PHASES = {"source": "first image", "encode": "encode", "denoise": "patches", "decode": "decode"}


def report_estimate(model: JobModel, spec: JobSpec, folder: Path, output: Path, *, json: bool) -> None:
    """Report the estimate of a job, then make sure that the disk has space for it."""
    check_output(output, *spec.size)
    found = estimate(model, spec, output, measure=True)
    if json:
        about = {"output": str(output), "writer": writer_name(output), "job": str(folder)}
        emit(found.to_dict() | about)
    else:
        _show_estimate(found, spec, output)
    check_disk(found, folder, output)


def _show_estimate(found: Estimate, spec: JobSpec, output: Path) -> None:
    if found.stages:
        _show_stages(found)
        say(f"calls   {found.calls:,} patches, two evaluations each with guidance")
    else:
        say(f"stages  none: the model generates {spec.size[1]} x {spec.size[0]} itself")
    seconds = "not measured" if found.seconds is None else f"about {format_seconds(found.seconds)} here"
    say(f"memory  {format_bytes(found.memory_bytes)} beside the model")
    if found.device is not None:
        peak, offloaded = (format_bytes(found.device[name]) for name in ("peak", "peak_offloaded"))
        say(f"GPU     about {peak}, {offloaded} with --offload model, in this dtype, at any size")
    folder, file = format_bytes(found.folder_bytes), format_bytes(found.output_bytes)
    say(f"disk    {folder} meanwhile, {file} at most for {output.name}")
    say(f"writer  {writer_name(output)}")
    say(f"time    {seconds}")


def _show_stages(found: Estimate) -> None:
    from rich.table import Table

    table = Table("stage", "size", "enlarged", "guided steps", "patches", "tiles")
    for number, stage in enumerate(found.stages, start=1):
        table.add_row(
            str(number),
            f"{stage.size[1]} x {stage.size[0]}",
            f"{stage.scale:.2f}",
            f"{stage.guided_steps} of {stage.num_steps}",
            f"{stage.calls:,}",
            f"{stage.tiles:,}",
        )
    show(table)


def report_result(result: JobResult, source: str, options: JobOutput) -> None:
    """Report a finished job."""
    height, width = result.size
    if options.json:
        emit({
            "input": source,
            "outputs": _outputs(result.outputs[0]),
            "status": "done",
            "seconds": round(result.seconds, 2),
            "width": width,
            "height": height,
            "denoiser_calls": result.calls,
            "job": str(options.job) if options.keep else None,
        })  # fmt: skip
        return
    say(
        f"{result.outputs[0]}: {width} x {height}, {result.calls:,} patches, {format_seconds(result.seconds)}"
    )
    for path in result.outputs[1:]:
        if path.suffix == ".html":
            say(f"open {path} in a browser to look around")


def report_skipped(source: str, options: JobOutput) -> None:
    """Report a job whose result exists."""
    assert options.output is not None
    warn(f"{options.output}: the result exists, skipped (--overwrite discards it)")
    if options.json:
        outputs = _outputs(options.output)
        emit({"input": source, "outputs": outputs, "status": "skipped", "seconds": 0.0})


def _outputs(path: Path) -> dict[str, str]:
    return {kind: str(file) for kind, file in output_files(path).items()}


def format_seconds(seconds: float) -> str:
    """Return a duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def report_progress(calls: list[int]) -> Generator[ProgressReporter]:
    """Show the progress of a job while it runs.

    Args:
        calls: Patches that each stage is expected to take.
    """
    with progress_bars() as bars:
        yield ProgressReporter(bars, calls)


class ProgressReporter:
    """Shows one bar for the patches of all stages, and one for everything else.

    Args:
        bars: Progress bars.
        calls: Patches that each stage is expected to take.
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
        """Show the position of the job."""
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
            left = f", {format_seconds((total - done) / rate)} left" if rate > 0 else ""
            stderr.print(f"{name} {done} of {total}{left}", highlight=False, markup=False, soft_wrap=True)
            self._line = now

    def _show_other(self, progress: JobProgress) -> None:
        name = f"{_title(progress)}: {_PHASES[progress.phase]}" if progress.phase != "write" else "write"
        if self._other is None or name != self._other_name:
            self._hide_other()
            self._other, self._other_name = self.bars.add_task(name, total=progress.total), name
        self.bars.update(self._other, completed=progress.done, total=progress.total)

    def _hide_other(self) -> None:
        if self._other is not None:
            self.bars.remove_task(self._other)
            self._other = None


def _title(progress: JobProgress) -> str:
    return f"stage {progress.stage + 1} of {progress.num_stages}" if progress.num_stages > 1 else "image"
