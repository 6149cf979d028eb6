# SPDX-License-Identifier: Apache-2.0
"""A data set through a model: shared out among processes, resumed, past every bad sample."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitron.errors import DataError, explain
from vitron.evaluation.answers import answer
from vitron.evaluation.pictures import Embed
from vitron.evaluation.readers import Item
from vitron.evaluation.tasks import EvaluationTask, Row
from vitron.protocol.messages import MessageGenerator, SamplingParams
from vitron.specialists.registry import SpecialistRegistry

__all__ = ["Evaluation", "evaluate"]

SETTINGS = "settings.json"
ITEM_ERRORS = (ValueError, TypeError, OSError, MemoryError, RuntimeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What all processes together found.

    Attributes:
        scores: By name.
        evaluated: Samples that count.
        resumed: How many of them an earlier run had finished.
        failures: What was wrong with the others, by their ids.
    """

    scores: dict[str, float]
    evaluated: int
    resumed: int
    failures: dict[str, str]


class _Processes:
    """Those that ``accelerate launch`` or ``torchrun`` started; alone without either."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = 0
        self._state: Any = None
        if self.count > 1:
            from datetime import timedelta

            import torch
            from accelerate import PartialState

            cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
            self._state = PartialState(cpu=cpu or not torch.cuda.is_available(), timeout=timedelta(days=1))
            self.rank = int(self._state.process_index)

    def wait(self) -> None:
        """Wait until all have come here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def gather(self, pairs: list[Any]) -> list[Any]:
        """Return what all have, in the order of the processes."""
        if self._state is None:
            return pairs
        from accelerate.utils import gather_object

        return list(gather_object(pairs))


def evaluate(
    task: EvaluationTask,
    items: Sequence[Item],
    replier: MessageGenerator | Callable[[Item], MessageGenerator],
    *,
    specialists: SpecialistRegistry,
    sampling: SamplingParams | None = None,
    embed: Embed | None = None,
    folder: Path | None = None,
    settings: dict[str, Any] | None = None,
    fresh: bool = False,
    on_item: Callable[[int, int, str | None], None] | None = None,
) -> Evaluation:
    """Evaluate a model; called by every process with the same arguments.

    Each process takes every n-th sample; rows are put together at the end, so all return the same.

    Args:
        task: What is measured.
        items: The samples.
        replier: The model, or what returns one for a sample.
        specialists: Who carries out calls.
        sampling: How replies are drawn.
        embed: A model for the scores that compare pictures with words.
        folder: Where the rows of finished samples are kept, so that a stopped run goes on.
        settings: What the rows depend on; rows of other settings are refused.
        fresh: Whether to drop what is kept.
        on_item: Called after every sample of this process with those done, those to do, and what was wrong.

    Raises:
        DataError: If the folder holds rows of other settings.
    """
    crew = _Processes()
    store = None if folder is None else _Store(folder, crew, settings or {}, fresh=fresh)
    ids = {item.sample.id for item in items}
    kept = {name: row for name, row in (store.kept if store else {}).items() if name in ids}
    mine = [item for item in items if item.sample.id not in kept][crew.rank :: crew.count]
    found, failed = list[tuple[str, Row]](), list[tuple[str, str]]()
    for number, item in enumerate(mine, 1):
        wrong = None
        try:
            row = _row(task, item, replier, specialists, sampling, embed)
        except ITEM_ERRORS as error:
            wrong = explain(error)
            failed.append((item.sample.id, wrong))
        else:
            found.append((item.sample.id, row))
            if store is not None:
                store.add(item.sample.id, row)
        if on_item is not None:
            on_item(number, len(mine), wrong)
    rows = kept | dict(crew.gather(found))
    ordered = [rows[item.sample.id] for item in items if item.sample.id in rows]
    return Evaluation(
        scores=task.summarise(ordered) if ordered else {},
        evaluated=len(ordered),
        resumed=len(kept),
        failures=dict(sorted(crew.gather(failed))),
    )


def _row(
    task: EvaluationTask,
    item: Item,
    replier: MessageGenerator | Callable[[Item], MessageGenerator],
    specialists: SpecialistRegistry,
    sampling: SamplingParams | None,
    embed: Embed | None,
) -> Row:
    example = item.example
    model = replier if hasattr(replier, "stream") else replier(item)  # pyright: ignore[reportCallIssue]  # the other kind
    made = answer(model, example, specialists, sampling)  # pyright: ignore[reportArgumentType]  # as above
    return task.judge(item, example, made, embed)


class _Store:
    """Rows of finished samples: a file of lines for each process."""

    def __init__(self, folder: Path, crew: _Processes, settings: dict[str, Any], *, fresh: bool) -> None:
        held = folder / SETTINGS
        if crew.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            if fresh:
                for file in [held, *folder.glob("rows-*.jsonl")]:
                    file.unlink(missing_ok=True)
            if not held.is_file():
                held.write_text(json.dumps(settings, sort_keys=True), "utf-8")
        crew.wait()
        if json.loads(held.read_text("utf-8")) != json.loads(json.dumps(settings)):
            raise DataError(f"{folder} holds rows of other settings: choose another --out, or --overwrite")
        self.kept = dict[str, Row]()
        for file in sorted(folder.glob("rows-*.jsonl")):
            for line in file.read_text("utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self.kept[str(entry["id"])] = entry["row"]
                except (ValueError, KeyError, TypeError):
                    continue  # cut short when a run was stopped
        crew.wait()
        self._file = folder / f"rows-{crew.rank}.jsonl"
        if self._file.is_file() and not self._file.read_bytes().endswith(b"\n"):
            with self._file.open("a", encoding="utf-8") as file:
                file.write("\n")

    def add(self, name: str, row: Row) -> None:
        """Keep one row."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"id": name, "row": row}) + "\n")
