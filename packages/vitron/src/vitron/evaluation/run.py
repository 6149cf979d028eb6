# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a model on a data set: sharded over processes and resumable; failed samples are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common_kernels.runtime.processes import Processes
from common_kernels.runtime.rows import RowStore

from vitron.errors import explain
from vitron.evaluation.answers import generate_answer
from vitron.evaluation.figures import Figure
from vitron.evaluation.images import Embed
from vitron.evaluation.readers import Item
from vitron.evaluation.tasks import EvaluationTask, Row
from vitron.protocol.messages import MessageGenerator
from vitron.protocol.sampling import SamplingParams
from vitron.specialists.registry import SpecialistRegistry

__all__ = ["Evaluation", "evaluate"]

ITEM_ERRORS = (ValueError, TypeError, OSError, MemoryError, RuntimeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Result of all processes together.

    Attributes:
        figures: Scores by name, with their confidence intervals.
        parts: The same for the samples of each turn (``turn 2``) and of each group (``group relation``),
            where the data have several.
        evaluated: Number of evaluated samples.
        resumed: Number of samples finished by an earlier run.
        failures: Error of each failed sample, by id.
    """

    figures: dict[str, Figure]
    parts: dict[str, dict[str, Figure]]
    evaluated: int
    resumed: int
    failures: dict[str, str]

    @property
    def scores(self) -> dict[str, float]:
        """Scores by name, without their intervals."""
        return {name: figure.value for name, figure in self.figures.items()}


def evaluate(
    task: EvaluationTask,
    items: Sequence[Item],
    model: Callable[[Item], MessageGenerator],
    *,
    specialists: SpecialistRegistry,
    sampling: SamplingParams | None = None,
    embed: Embed | None = None,
    folder: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    processes: Processes | None = None,
    workers: int = 1,
    on_item: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Evaluate a model; every process calls this with the same arguments.

    Each process takes its shard of the samples; rows are merged at the end, so all return the same.

    Args:
        task: Task that is scored.
        items: Samples.
        model: Function that returns the generator of a sample's message; for a model, a function that always
            returns it.
        specialists: Specialists that run the calls.
        sampling: Sampling parameters; greedy by default.
        embed: Model for the scores that compare images with text.
        folder: Folder of the rows of finished samples, from which a stopped run resumes.
        settings: Settings that the rows depend on; rows of other settings are ignored.
        overwrite: Whether to discard earlier rows of these settings.
        processes: Processes of the run, joined before the model was loaded; by default this one alone.
        workers: Number of samples at a time; above 1 ``model`` must generate from several threads, as
            :class:`vitron.model.ContinuousBatcher` does.
        on_item: Called after every sample of this process with the numbers of samples done and in all.
    """
    crew = processes or Processes()
    store = None if folder is None else RowStore(folder, settings=settings or {}, rank=crew.rank)
    if store is not None and overwrite and crew.is_main:
        store.clear()
    crew.wait()
    kept = store.read([item.sample.id for item in items]) if store else {}
    crew.wait()
    shard = crew.shard([item for item in items if item.sample.id not in kept])
    found, failed = dict[str, Row](), dict[str, str]()

    def work(item: Item) -> Row | str:
        try:
            example = item.example
            answer = generate_answer(model(item), example, specialists, sampling)
            return task.judge(item, example, answer, embed)
        except ITEM_ERRORS as error:
            return explain(error)

    for number, (item, row) in enumerate(_in_order(work, shard, workers), 1):
        if isinstance(row, str):
            failed[item.sample.id] = row
        else:
            found[item.sample.id] = row
            if store is not None:
                store.append(item.sample.id, row)
        if on_item is not None:
            on_item(number, len(shard))
    rows, failures = dict(kept), dict[str, str]()
    for their_rows, their_failures in crew.gather((found, failed)):
        rows |= their_rows
        failures |= their_failures
    scored = [(item, rows[item.sample.id]) for item in items if item.sample.id in rows]
    return Evaluation(
        figures=task.summarise([row for _, row in scored]) if scored else {},
        parts=_parts(task, scored),
        evaluated=len(scored),
        resumed=len(kept),
        failures=dict(sorted(failures.items())),
    )


def _in_order(
    work: Callable[[Item], Row | str], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Row | str]]:
    """Yield the results of several samples at a time, in order."""
    if workers < 2:
        yield from ((item, work(item)) for item in items)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from zip(items, pool.map(work, items), strict=True)


def _parts(task: EvaluationTask, scored: Sequence[tuple[Item, Row]]) -> dict[str, dict[str, Figure]]:
    """Return the figures by turn and by group; nothing where all samples are of one turn or group."""
    parts = dict[str, dict[str, list[Row]]](turn={}, group={})
    for item, row in scored:
        parts["turn"].setdefault(str(item.turn), []).append(row)
        parts["group"].setdefault(item.sample.group or "none", []).append(row)
    return {
        f"{kind} {name}": task.summarise(rows)
        for kind, named in parts.items()
        if len(named) > 1
        for name, rows in sorted(named.items())
    }
