# SPDX-License-Identifier: Apache-2.0
"""Many files through one method: which, where to, which are done, past every failure, over all processes."""

from __future__ import annotations

import glob
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common_kernels.runtime.cli import (
    EXIT_DONE,
    EXIT_FAILED_ITEMS,
    OnProgress,
    emit,
    explain,
    program_name,
    progress_bars,
    stderr,
    warn,
)
from common_kernels.runtime.files import is_temporary
from common_kernels.runtime.fingerprint import digest_file, digest_settings
from common_kernels.runtime.hub import resolve_device
from common_kernels.runtime.images.limits import OTHERS, READABLE
from common_kernels.runtime.processes import join_processes
from common_kernels.runtime.records import ResultRecord

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["BatchReport", "Job", "NameOutputs", "Source", "find_sources", "plan_jobs", "run_jobs"]

NameOutputs = Callable[[Path], Mapping[str, Path]]
"""Turns a path into the files of each kind that are written for it."""

Process = Callable[["Job", OnProgress], Mapping[str, object]]
"""Does one job, writes its outputs and returns what to report; a ``note`` is also shown on stderr."""

_MOST_NAMED = 5  # files in one line
_FORMAT = re.compile(r"\.[a-z]\w*")  # a suffix such as .png, and not that of results-0.5
# torch reports out of memory by a RuntimeError
_ITEM_ERRORS = (ValueError, TypeError, LookupError, OSError, MemoryError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Source:
    """One file to read.

    Attributes:
        path: File.
        relative: Path below the input that named it, by which its results are named.
    """

    path: Path
    relative: Path


@dataclass(frozen=True, slots=True)
class Job:
    """One file to read and the files to write for it.

    Attributes:
        source: File to read.
        outputs: Files to write, by kind.
    """

    source: Path
    outputs: Mapping[str, Path]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """What became of the items of all processes.

    Attributes:
        done: Number of items done now.
        skipped: Number of items whose results were there from the same input with the same settings.
        failed: Number of items that failed.
    """

    done: int
    skipped: int
    failed: int

    @property
    def exit_code(self) -> int:
        """0, or 1 if an item failed."""
        return EXIT_FAILED_ITEMS if self.failed else EXIT_DONE


def find_sources(
    inputs: Sequence[str | Path],
    *,
    suffixes: Collection[str] = READABLE,
    recursive: bool = False,
    exclude: Path | None = None,
    what: str = "image",
) -> list[Source]:
    """Find the files that inputs name, each once, in a stable order.

    Args:
        inputs: Files, folders or globs. A file is taken whatever its name; folders and globs give the files
            with one of the suffixes that are not hidden.
        suffixes: Lower-case suffixes with their dot.
        recursive: Whether to search the folders below a folder.
        exclude: Folder of results; what lies below it is not a source, unless it is an input itself.
        what: Word for one file, in errors.

    Returns:
        The files. Videos and images of other kinds that a folder holds are named on stderr as left out.

    Raises:
        ValueError: If no file is found.
        FileNotFoundError: If files are named and none of them exists; one of several is left to its reader.
    """
    seen: dict[Path, Source] = {}
    for source in _sources(inputs, suffixes, recursive, exclude):
        seen.setdefault(_resolved(source.path), source)
    if seen and all(_is_missing(source.path) for source in seen.values()):
        names = ", ".join(str(source.path) for source in seen.values())
        raise FileNotFoundError(f"{names} {'does' if len(seen) == 1 else 'do'} not exist")
    if not seen:
        looked = ", ".join(sorted(suffix.lstrip(".") for suffix in suffixes))
        cure = "" if recursive else "; --recursive also searches the folders below"
        raise ValueError(f"no {what} found in {', '.join(map(str, inputs))} (suffixes: {looked}){cure}")
    return list(seen.values())


def _sources(
    inputs: Sequence[str | Path], suffixes: Collection[str], recursive: bool, exclude: Path | None
) -> Iterator[Source]:
    results = None if exclude is None else _resolved(exclude)
    for text in map(str, inputs):
        path = Path(text)
        if path.is_dir():
            found = sorted(path.rglob("*") if recursive else path.iterdir())
            inside = _resolved(path)
            if results is not None and results != inside and results.is_relative_to(inside):
                found = [each for each in found if not _resolved(each).is_relative_to(results)]
            _tell_left_out(path, [p for p in found if _is_source(p, path, OTHERS - frozenset(suffixes))])
            yield from (Source(p, p.relative_to(path)) for p in found if _is_source(p, path, suffixes))
        elif glob.has_magic(text) and not path.exists():
            matches = map(Path, sorted(glob.glob(text, recursive=recursive)))
            yield from (Source(p, Path(p.name)) for p in matches if _is_source(p, p.parent, suffixes))
        else:
            yield Source(path, Path(path.name))


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # its reader says what is wrong
        return False
    return False


def _resolved(path: Path) -> Path:
    # Path.resolve of Python 3.11 and 3.12 raises for links that lead to themselves
    return Path(os.path.realpath(path))


def _tell_left_out(folder: Path, files: Sequence[Path]) -> None:
    if files:
        names = ", ".join(str(file.relative_to(folder)) for file in files[:_MOST_NAMED])
        more = f" and {len(files) - _MOST_NAMED} more" if len(files) > _MOST_NAMED else ""
        warn(f"{folder}: left out, of a kind that is not read from folders: {names}{more}")


def _is_source(path: Path, folder: Path, suffixes: Collection[str]) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in suffixes and not hidden and path.is_file() and not is_temporary(path)


def plan_jobs(
    inputs: Sequence[str | Path],
    output: Path,
    *,
    in_folder: NameOutputs,
    as_file: NameOutputs,
    file_suffixes: Collection[str],
    suffixes: Collection[str] = READABLE,
    recursive: bool = False,
    what: str = "image",
) -> list[Job]:
    """Pair every input file with its outputs, before anything is read or loaded.

    Args:
        inputs: As for :func:`find_sources`.
        output: The output file, if there is one input file and this has one of ``file_suffixes``; else a
            folder, in which the sub-folders of an input folder appear again. A folder that one file needs is
            made only of a name without a suffix, so that a mistyped suffix makes none.
        in_folder: Turns the relative path of a source into the relative paths of its outputs, by kind.
        as_file: Turns ``output`` into the outputs of the only source, by kind.
        file_suffixes: Lower-case suffixes that make ``output`` a file.
        suffixes: As for :func:`find_sources`.
        recursive: As for :func:`find_sources`.
        what: Word for one file, in errors.

    Returns:
        Jobs in a stable order; results of earlier runs beside the sources are not sources.

    Raises:
        ValueError: If there is no source, two would become one file, one would be replaced by a result, the
            output is a file where a folder is needed, or its suffix names no format.
        FileNotFoundError: As for :func:`find_sources`.
    """
    sources = find_sources(inputs, suffixes=suffixes, recursive=recursive, exclude=output, what=what)
    one_file = len(sources) == 1 and len(inputs) == 1 and not Path(inputs[0]).is_dir() and not output.is_dir()
    suffix = output.suffix.lower()
    if one_file and suffix in file_suffixes:
        jobs = [Job(sources[0].path, as_file(output))]
    elif output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file, but a folder is needed for {len(sources)} {what}(s)")
    elif one_file and not output.exists() and file_suffixes and _FORMAT.fullmatch(suffix):
        raise ValueError(
            f"{output} cannot be written: its suffix must be one of {', '.join(sorted(file_suffixes))}; "
            "a folder has a name without a suffix, or is made first"
        )
    elif not output.exists() and suffix in {*file_suffixes, *suffixes, *OTHERS}:
        if one_file:
            raise ValueError(f"{output} cannot be written: several files are, so give a folder")
        raise ValueError(
            f"{output} names one file, but the input is a folder or several files: give a folder"
        )
    else:
        named = {_resolved(Path(text)) for text in inputs}
        jobs = _jobs_in_folder(_without_results(sources, output, in_folder, named), output, in_folder)
    _refuse_clashes(jobs)
    return jobs


def _jobs_in_folder(sources: Sequence[Source], output: Path, in_folder: NameOutputs) -> list[Job]:
    """Name the outputs; of files that differ in their suffix only, such as a.jpg and a.png, say a-jpg."""
    plain = [in_folder(source.relative) for source in sources]
    taken: dict[Path, list[int]] = {}
    for number, outputs in enumerate(plain):
        for path in outputs.values():
            taken.setdefault(path, []).append(number)
    for path, numbers in taken.items():
        # the file whose own suffix the result has keeps its name
        names = [sources[number].relative for number in numbers]
        keeps = next((name for name in names if name.suffix == path.suffix), None)
        alike = len(names) > 1 and len({name.with_suffix("") for name in names}) == 1
        for number, relative in zip(numbers, names, strict=True) if alike else ():
            if relative != keeps and relative.suffix:
                tagged = relative.with_name(f"{relative.stem}-{relative.suffix[1:]}{relative.suffix}")
                plain[number] = in_folder(tagged)
    return [
        Job(source.path, {kind: output / path for kind, path in outputs.items()})
        for source, outputs in zip(sources, plain, strict=True)
    ]


def _without_results(
    sources: Sequence[Source], output: Path, in_folder: NameOutputs, named: Collection[Path]
) -> list[Source]:
    """Leave out sources that are results of others, unless they were named."""
    places = [_resolved(source.path) for source in sources]
    results = {
        place
        for source, own in zip(sources, places, strict=True)
        for path in in_folder(source.relative).values()
        if (place := _resolved(output / path)) != own
    }
    return [
        source for source, place in zip(sources, places, strict=True) if place not in results - set(named)
    ]


def _refuse_clashes(jobs: Sequence[Job]) -> None:
    sources = {_resolved(job.source) for job in jobs}
    written: dict[Path, Path] = {}
    for job in jobs:
        for path in job.outputs.values():
            place = _resolved(path)
            if place in sources:
                whose = "its own result" if place == _resolved(job.source) else f"a result of {job.source}"
                raise ValueError(f"{path} would be overwritten by {whose}: give another name or folder")
            if place in written:
                raise ValueError(
                    f"{written[place]} and {job.source} would both become {path}: run them separately"
                )
            written[place] = job.source


def run_jobs(
    jobs: Sequence[Job],
    start: Callable[[str], Process],
    *,
    settings: Mapping[str, object],
    device: str = "auto",
    workers: int = 1,
    overwrite: bool = False,
    json: bool = False,
    debug: bool = False,
) -> BatchReport:
    """Do the jobs of this process, past every failure, and report on stdout and stderr.

    The processes of ``accelerate launch`` or ``torchrun`` are joined first; each does its shard on its own
    device, and all return the same report. A job is skipped only if its outputs are there and were made from
    the same input with the same settings. A file that no earlier run of ours made is not replaced unless
    ``overwrite`` is set.

    Args:
        jobs: From :func:`plan_jobs`; the same in every process.
        start: Called with the device of this process when there is a job to do: loads the model and returns
            the function that does a job.
        settings: Everything besides program and input that a result depends on: model digest, options.
        device: Device that was asked for.
        workers: Jobs in progress at once, each in a thread, so that one is read or written while another is
            computed. The function that does a job is then called by several threads and shares its model
            among them. Results are reported in the order of the jobs.
        overwrite: Whether to discard earlier results.
        json: Whether to print one JSON object per item on stdout: ``input``, ``outputs``, ``status`` (done,
            skipped or failed), ``error``, ``seconds`` and what the job reports.
        debug: Whether to raise the first error of an item.

    Returns:
        Counts over all processes.

    Raises:
        Exception: What ``start`` raises; what a job raises, if ``debug``.
    """
    if device not in ("auto", "cpu"):
        resolve_device(device)  # a device that is not there is reported before anything is written
    processes = join_processes(device)
    digest = digest_settings({"program": program_name(), "settings": settings})
    runner = _Runner(start, processes.device(device), digest, overwrite=overwrite, debug=debug)
    shard = processes.shard(jobs)
    counts: dict[str, int] = {"done": 0, "skipped": 0, "failed": 0}
    with progress_bars() as bars:
        items = bars.add_task("files", total=len(shard), visible=len(shard) > 1)
        for job, entry in _in_order(runner, shard, min(workers, len(shard)), bars):
            bars.advance(items)
            counts[str(entry["status"])] += 1
            _tell(job, entry, json=json)
    everywhere = processes.gather(counts)
    totals = {status: sum(each[status] for each in everywhere) for status in counts}
    if len(jobs) > 1 and processes.is_main:
        stderr.print(", ".join(f"{number} {status}" for status, number in totals.items() if number))
    return BatchReport(**totals)


class _Stopped(BaseException):
    """Ends the jobs of other threads after an error or an interrupt; no error of an item."""


def _in_order(
    runner: _Runner, jobs: Sequence[Job], workers: int, bars: Progress
) -> Iterator[tuple[Job, dict[str, object]]]:
    """Do jobs, some at once; yield each with its entry in order."""
    stops = threading.Event()

    def do(job: Job) -> dict[str, object]:
        part = bars.add_task(job.source.name, total=None)

        def on_progress(done: int, total: int) -> None:
            if stops.is_set():
                raise _Stopped
            bars.update(part, completed=done, total=total)

        try:
            return runner.run(job, on_progress)
        finally:
            bars.remove_task(part)

    if workers <= 1:
        yield from ((job, do(job)) for job in jobs)
        return
    waiting: deque[tuple[Job, Future[dict[str, object]]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="job") as pool:
        try:
            for job in jobs:
                waiting.append((job, pool.submit(do, job)))
                if len(waiting) == workers:
                    first, found = waiting.popleft()
                    yield first, found.result()
            for job, found in waiting:
                yield job, found.result()
        finally:  # an error, an interrupt, or nothing is left
            stops.set()
            pool.shutdown(cancel_futures=True)


class _Runner:
    """Does one job at a time; the model is loaded with the first that is not skipped."""

    def __init__(
        self, start: Callable[[str], Process], device: str, digest: str, *, overwrite: bool, debug: bool
    ) -> None:
        self.start, self.device, self.digest = start, device, digest
        self.overwrite, self.debug = overwrite, debug
        self._process: Process | None = None
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def run(self, job: Job, on_progress: OnProgress) -> dict[str, object]:
        began = time.perf_counter()
        entry: dict[str, object] = {
            "input": str(job.source),
            "outputs": {kind: str(path) for kind, path in job.outputs.items()},
        }
        record = ResultRecord(job.outputs.values())
        digest = self._prepare(job, record, entry)
        if digest is not None:
            process = self._start(record)
            try:
                entry |= process(job, on_progress)
                record.complete(digest)
                entry["status"] = "done"
            except _ITEM_ERRORS as error:
                self._failed(job, record, error, entry)
        entry["seconds"] = round(time.perf_counter() - began, 3)
        return entry

    def _start(self, record: ResultRecord) -> Process:
        with self._lock:
            try:
                if self._error is not None:  # of another thread
                    raise self._error
                if self._process is None:
                    self._process = self.start(self.device)
            except BaseException as error:  # a model that cannot be loaded fails the run, not an item
                self._error = error
                record.discard_if_empty()
                raise
            return self._process

    def _prepare(self, job: Job, record: ResultRecord, entry: dict[str, object]) -> str | None:
        """Return the digest of a job to do; ``None`` if its entry says that it is skipped or failed."""
        try:
            # a missing file is reported where it is read
            content = digest_file(job.source) if job.source.is_file() else ""
            digest = digest_settings([content, self.digest])
            if not self.overwrite and record.is_done(digest):
                entry["status"] = "skipped"
                return None
            record.begin(digest)
        except _ITEM_ERRORS as error:
            self._failed(job, record, error, entry)
            return None
        return digest

    def _failed(self, job: Job, record: ResultRecord, error: Exception, entry: dict[str, object]) -> None:
        if self.debug:
            raise error
        message = explain(error)
        entry |= {
            "status": "failed",
            "error": message if str(job.source) in message else f"{job.source}: {message}",
        }
        record.discard_if_empty()


def _tell(job: Job, entry: Mapping[str, object], *, json: bool) -> None:
    if entry["status"] == "failed":
        warn(str(entry["error"]))
    elif entry["status"] == "skipped":
        warn(f"{job.source}: the results are there, skipped (--overwrite discards them)")
    elif entry.get("note"):
        warn(f"{job.source}: {entry['note']}")
    if json:
        emit(entry)
