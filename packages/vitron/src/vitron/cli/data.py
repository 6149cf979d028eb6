# SPDX-License-Identifier: Apache-2.0
"""``vitron data``: converts data sets, checks them, and shows what is in them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from vitron.cli.output import Debug, Json, say, stderr, stdout, user_errors, warn

if TYPE_CHECKING:
    from vitron.data.schema import Sample

data_app = typer.Typer(no_args_is_help=True, help="Convert, check and show instruction data.")

Folder = Annotated[Path, typer.Argument(metavar="DATA", help="A folder with data.jsonl, or the file.")]
MAX_TOLD = 20


@data_app.command()
def convert(
    layout: Annotated[
        str,
        typer.Argument(
            help="captions, davis, llava, magicbrush, refcoco, refcoco-box, "
            "refcoco-caption, release, vidstg or vqa."
        ),
    ],
    source: Annotated[Path, typer.Argument(help="Folder, or file, of the data set.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the data go.")],
    split: Annotated[str | None, typer.Option(help="One part of it, as testA.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="So many samples only.")] = None,
    copy: Annotated[bool, typer.Option(help="Copy the media beside the lines.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace data that are there.")] = False,
    debug: Debug = False,
) -> None:
    """Turn a public layout into lines of data.jsonl with the media beside them.

    Samples whose media are missing are left out and told; the exit code is 1 then.

    [bold]Examples[/bold]

      vitron data convert refcoco refcoco/ -o mine/ --split testA

      vitron data convert release invocations.json -o mine/ --limit 100
    """
    with user_errors(debug):
        from vitron.data.converters import read_layout
        from vitron.data.files import FILE, write_samples
        from vitron.errors import explain

        if (out / FILE).exists() and not overwrite:
            raise ValueError(f"{out / FILE} is there already: choose another --out, or --overwrite")
        root = source if source.is_dir() else source.parent
        options = {} if split is None else {"split": split}
        samples, wrong = islice(read_layout(layout, source, **options), limit), list[str]()
        with Progress(
            TextColumn("{task.completed} samples"), TimeElapsedColumn(), console=stderr, transient=True
        ) as bar:
            count = write_samples(
                bar.track(samples, total=None),
                out,
                source=root if copy else None,
                on_error=lambda error: wrong.append(explain(error)),
            )
        if not count:
            raise ValueError(wrong[0] if wrong else f"{source} holds no samples of this kind")
    _warn_all(wrong)
    say(f"{count} samples in {out / FILE}" + (f", {len(wrong)} left out" if wrong else ""))
    if wrong:
        raise typer.Exit(1)


@data_app.command()
def check(
    data: Folder,
    media: Annotated[bool, typer.Option(help="Also read every picture and clip.")] = True,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Read every line, and by default every file, and say what is wrong. Exit code 1 if anything is."""
    with user_errors(debug):
        from vitron.data.files import data_file, read_example, read_samples
        from vitron.errors import DataError, explain

        folder, wrong, counts = data_file(data).parent, list[str](), Counter[str]()
        for number, sample in read_samples(data, on_error=lambda error: wrong.append(explain(error))):
            counts[sample.task] += 1
            try:
                if media:
                    read_example(sample, folder)
            except DataError as error:
                wrong.append(f"line {number}: {explain(error)}")
    if json_output:
        typer.echo(json.dumps({"samples": sum(counts.values()), "tasks": dict(counts), "problems": wrong}))
    else:
        _warn_all(wrong)
        say(f"{sum(counts.values())} samples can be read, {len(wrong)} problems")
    if wrong:
        raise typer.Exit(1)


@data_app.command()
def show(
    data: Folder,
    name: Annotated[str | None, typer.Option("--id", help="One sample, in full.")] = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Show how many samples there are of each task, or one sample.

    [bold]Examples[/bold]

      vitron data show mine/

      vitron data show mine/ --id 5-0
    """
    with user_errors(debug):
        from vitron.data.files import read_samples

        found: list[Sample] = []
        counts = Counter[tuple[str, str]]()
        for _, sample in read_samples(data):
            counts[sample.task, sample.split] += 1
            if sample.id == name:
                found.append(sample)
        if name is not None and not found:
            raise ValueError(f"{data} holds no sample {name!r}")
    if found:
        typer.echo(found[0].model_dump_json(exclude_none=True) if json_output else _told(found[0]))
        return
    rows: list[dict[str, Any]] = [
        {"task": task, "split": split, "samples": count} for (task, split), count in sorted(counts.items())
    ]
    if json_output:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    table = Table("task", "split", "samples")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    stdout.print(table)


def _warn_all(sentences: Sequence[str]) -> None:
    for sentence in sentences[:MAX_TOLD]:
        warn(sentence)
    if len(sentences) > MAX_TOLD:
        warn(f"and {len(sentences) - MAX_TOLD} more")


def _told(sample: Sample) -> str:
    """Return a sample as a person reads it."""
    from vitron.protocol import render_invocation

    lines = [f"{sample.id} ({sample.task}, {sample.split})"]
    for message in sample.messages:
        parts = [
            part.text
            if part.type == "text"
            else f"[{sample.media[part.media].paths[0]}]"
            if part.type == "media"
            else f"[{sample.regions[part.region].region.kind}]"
            for part in message.content
        ]
        calls = [render_invocation(call) for call in message.calls]
        lines.append(f"{message.role}: {' '.join([*parts, *calls])}")
    truth = sample.targets.model_dump(exclude_defaults=True)
    if truth:
        lines.append(f"truth: {', '.join(truth)}")
    return "\n".join(lines)
