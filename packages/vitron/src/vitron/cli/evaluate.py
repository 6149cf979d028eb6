# SPDX-License-Identifier: Apache-2.0
"""``vitron evaluate``: a data set in, scores beside the published ones out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from vitron.cli.model import Device, Dtype, Memory, Model, Prefer, Timeout, bound, load
from vitron.cli.output import Debug, Json, say, stderr, stdout, user_errors, warn

if TYPE_CHECKING:
    from vitron.evaluation import Evaluation, Item
    from vitron.protocol.messages import MessageGenerator
    from vitron.specialists import SpecialistRegistry

MAX_TOLD = 10


def evaluate(
    task: Annotated[str, typer.Argument(help="As referring_segmentation; --help lists all.", metavar="TASK")],
    data: Annotated[Path, typer.Option("--data", "-d", help="Folder, or file, of the data set.")],
    layout: Annotated[str | None, typer.Option(help="Public layout of it; ours by default.")] = None,
    split: Annotated[str | None, typer.Option(help="One part of it, as testA.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many samples only.")] = None,
    model: Model = "vitron-tiny",
    replies: Annotated[
        Path | None, typer.Option(help='Given replies instead of a model: lines {"id": .., "reply": ..}.')
    ] = None,
    clip: Annotated[
        str | None, typer.Option(help="CLIP model (folder or hub name) for scores of pictures and words.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where rows are kept.")] = Path(
        "vitron-evaluation"
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew.")] = False,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest reply.")] = 256,
    free: Annotated[bool, typer.Option("--free", help="Do not hold calls to the grammar.")] = False,
    seed: Annotated[int, typer.Option(help="For specialists.")] = 0,
    timeout: Timeout = None,
    memory: Memory = None,
    prefer: Prefer = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a model on a data set, and show what was published for the task.

    Tasks: caption, dialogue, image_editing, image_to_video, invocation, referring_box,
    referring_segmentation, region_caption, text_to_image, text_to_video, video_grounding,
    video_segmentation, vqa.

    A run that was stopped goes on where it was. Under [bold]accelerate launch[/bold] (on CPUs
    [bold]torchrun[/bold]) samples are shared out among the processes. Replies are greedy.

    [bold]Examples[/bold]

      vitron evaluate referring_segmentation --data refcoco/ --layout refcoco --split testA

      vitron evaluate invocation --data mine/ --limit 200 --json > scores.json

      accelerate launch --num_processes 4 -m vitron evaluate vqa --data vqa/ --layout vqa

    Exit code: 0 all done, 1 some samples failed, 2 nothing could be done.
    """
    with user_errors(debug):
        from vitron.evaluation import TASKS, read_items
        from vitron.evaluation import evaluate as run
        from vitron.protocol.messages import SamplingParams

        if task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
        items = read_items(data, task, layout=layout, split=split, limit=limit)
        source, registry = _source(model, replies, device, dtype)
        embed = None
        if clip is not None:
            from vitron.evaluation.clip import load_embed

            embed = load_embed(clip)
        settings = {
            "task": task,
            "data": str(data.resolve()),
            "layout": layout,
            "model": model if replies is None else str(replies.resolve()),
            "clip": clip,
            "max_tokens": max_tokens,
            "free": free,
            "seed": seed,
        }
        with _progress(task) as tell:
            found = run(
                TASKS[task],
                items,
                source,
                specialists=bound(registry, timeout, memory, prefer),
                sampling=SamplingParams(max_new_tokens=max_tokens, constrained=not free, seed=seed),
                embed=embed,
                folder=out,
                settings=settings,
                fresh=overwrite,
                on_item=tell,
            )
    if _rank() == 0:
        _tell(task, settings, found, json_output)
    raise typer.Exit(1 if found.failures else 0)


def _source(
    model: str, replies: Path | None, device: str, dtype: str
) -> tuple[MessageGenerator | Callable[[Item], MessageGenerator], SpecialistRegistry]:
    """Return what writes the replies, and who carries out their calls."""
    if replies is None:
        return load(model, device, dtype)
    from vitron.evaluation.answers import ScriptedReplier, read_replies
    from vitron.specialists import SpecialistRegistry

    given = read_replies(replies)

    def scripted(item: Item) -> MessageGenerator:
        if item.sample.id not in given:
            raise ValueError(f"{replies} holds no reply for {item.sample.id}")
        return ScriptedReplier([given[item.sample.id]])

    return scripted, SpecialistRegistry().discover()


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


class _progress:  # noqa: N801  # used as a function
    """A bar on stderr, of the first process alone."""

    def __init__(self, task: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=stderr, disable=_rank() != 0 or not stderr.is_terminal)
        self._id = self._bar.add_task(task)

    def __enter__(self) -> Callable[[int, int, str | None], None]:
        self._bar.start()
        return self._tell

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def _tell(self, done: int, total: int, wrong: str | None) -> None:
        self._bar.update(self._id, completed=done, total=total)


def _tell(task: str, settings: dict[str, Any], found: Evaluation, json_output: bool) -> None:
    from vitron.evaluation.published import PUBLISHED

    published = PUBLISHED.get(task, ())
    if json_output:
        told = {
            "settings": settings,
            "scores": found.scores,
            "evaluated": found.evaluated,
            "resumed": found.resumed,
            "failures": found.failures,
            "published": [each._asdict() for each in published],
        }
        typer.echo(json.dumps(told))
        return
    for name, sentence in list(found.failures.items())[:MAX_TOLD]:
        warn(f"{name}: {sentence}")
    table = Table("score", "here", title=f"{task}, {found.evaluated} samples")
    for name, value in found.scores.items():
        table.add_row(name, f"{value:.4f}")
    stdout.print(table)
    if published:
        paper = Table("benchmark", "score", "paper", "without synergy", "best other", title="As published")
        for each in published:
            without = "" if each.without_synergy is None else f"{each.without_synergy:.4f}"
            other = f"{each.rival:.4f} {each.rival_name}"
            paper.add_row(each.benchmark, each.metric, f"{each.vitron:.4f}", without, other)
        stdout.print(paper)
    earlier, failed = found.resumed, len(found.failures)
    say(f"{found.evaluated} samples, {earlier} of them from an earlier run, {failed} failed")
