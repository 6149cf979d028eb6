# SPDX-License-Identifier: Apache-2.0
"""``vitron data``: converts data sets, checks them, and shows what is in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from common_kernels.runtime.cli import Output, Report, emit, progress_bars, say, warn
from common_kernels.runtime.cli import show as show_table
from cyclopts import Parameter

from vitron.cli.options import require

if TYPE_CHECKING:
    from vitron.data.schema import Sample

MAX_SHOWN = 20


def convert(
    layout: str,
    source: Path,
    /,
    *,
    split: str | None = None,
    limit: int | None = None,
    copy: bool = True,
    output: Output,
) -> int:
    """Convert a public layout into data.jsonl with the media beside it.

    Layouts: captions, cc3m, davis, flickr30k, got10k, gqa, lasot, llava, magicbrush, mot, refcoco,
    refcoco-box, refcoco-caption, release, vidstg, vqa, webvid. The layouts captions-generation,
    cc3m-generation and webvid-generation give calls that generate what the captions describe.
    Samples whose media are missing are skipped and named; the exit code is 1 then.

    **Examples**

        vitron data convert refcoco refcoco/ -o mine/ --split testA
        vitron data convert release invocations.json -o mine/ --limit 100

    Args:
        layout: Layout of the data set.
        source: Folder, or file, of the data set.
        split: Part of the data set, such as testA; default is all.
        limit: Largest number of samples.
        copy: Copy the media beside data.jsonl.
        output: Folder of the converted data.
    """
    from vitron.data.converters import read_layout
    from vitron.data.files import FILE, write_samples
    from vitron.errors import explain

    if limit is not None and limit < 1:
        raise ValueError(f"--limit must be at least 1, got {limit}")
    folder = output.output
    if (folder / FILE).exists() and not output.overwrite:
        raise FileExistsError(f"{folder / FILE} exists: --overwrite replaces it")
    root = source if source.is_dir() else source.parent
    options = {} if split is None else {"split": split}
    samples, problems = islice(read_layout(layout, source, **options), limit), list[str]()
    with progress_bars() as bars:
        count = write_samples(
            bars.track(samples, total=limit, description="samples"),
            folder,
            source=root if copy else None,
            on_error=lambda error: problems.append(explain(error)),
        )
    if not count:
        raise ValueError(problems[0] if problems else f"{source} holds no samples of this kind")
    if output.json:
        emit({"output": str(folder / FILE), "samples": count, "problems": problems})
    else:
        _warn_all(problems)
        say(f"{count} samples in {folder / FILE}" + (f", {len(problems)} skipped" if problems else ""))
    return int(bool(problems))


def demo(*, scenes: int = 4, seed: int = 0, output: Output) -> None:
    """Draw a small data set with every task, to try each stage of training within a minute.

    **Examples**

        vitron data demo -o drawn/
        vitron data demo -o held-out/ --scenes 2 --seed 1

    Args:
        scenes: Number of drawn scenes; each gives one conversation of each task.
        seed: Random seed of the scenes.
        output: Folder of the data set.
    """
    from vitron.data.drawn import write_drawn_data
    from vitron.data.files import FILE

    if scenes < 1:
        raise ValueError(f"--scenes must be at least 1, got {scenes}")
    file = output.output / FILE
    if file.exists() and not output.overwrite:
        raise FileExistsError(f"{file} exists: --overwrite replaces it")
    count = write_drawn_data(output.output, scenes=scenes, seed=seed)
    if output.json:
        emit({"output": str(file), "samples": count})
    else:
        say(f"{count} samples in {file}")


def conditions(
    data: Path,
    /,
    *,
    pipeline: str,
    module: str = "text_to_image",
    device: str = "auto",
    batch_size: int = 16,
    overwrite: Annotated[bool, Parameter(negative="")] = False,
    report: Report = Report(),
) -> None:
    """Compute the prompt embeddings that condition heads learn, by a pipeline of diffusers.

    They are stored in conditions/ beside data.jsonl, and training reads them from there. Only the text
    encoders of the pipeline are loaded. Embeddings that the same pipeline computed before are kept.

    **Examples**

        vitron data conditions mine/ --pipeline stable-diffusion-v1-5/stable-diffusion-v1-5
        vitron data conditions mine/ --pipeline cerspense/zeroscope_v2_576w --module text_to_video

    Args:
        data: Folder with data.jsonl, or the file.
        pipeline: Folder or hub id of the pipeline.
        module: Module whose calls the pipeline runs.
        device: Device: auto, cpu, cuda[:n], xpu[:n] or mps.
        batch_size: Prompts per batch.
        overwrite: Compute all embeddings again.
    """
    require("specialists", "diffusers")
    from vitron.data.conditions import compute_conditions

    with progress_bars() as bars:
        found = compute_conditions(
            data,
            module,
            pipeline,
            device=device,
            batch_size=batch_size,
            overwrite=overwrite,
            track=lambda files: bars.track(files, total=len(files), description="files"),
        )
    figures = {"prompts": len(found.files), "num_vectors": found.num_vectors, "width": found.width}
    if report.json:
        emit({"output": str(found.folder), "status": "done", **figures})
    else:
        size = f"{found.num_vectors} vectors of {found.width} each"
        say(f"{len(found.files)} prompts, {size}, in {found.folder}")


def check(data: Path, /, *, media: bool = True, report: Report = Report()) -> int:
    """Read every line, and by default every file, and name every problem.

    Exit code 1 if there are problems.

    **Examples**

        vitron data check mine/
        vitron data check mine/ --no-media --json

    Args:
        data: Folder with data.jsonl, or the file.
        media: Also read every image and video.
    """
    from vitron.data.files import data_file, read_example, read_samples
    from vitron.errors import DataError, explain

    folder, problems, counts = data_file(data).parent, list[str](), Counter[str]()
    for number, sample in read_samples(data, on_error=lambda error: problems.append(explain(error))):
        counts[sample.task] += 1
        try:
            if media:
                read_example(sample, folder)
        except DataError as error:
            problems.append(f"line {number}: {explain(error)}")
    if report.json:
        emit({"samples": sum(counts.values()), "tasks": dict(counts), "problems": problems})
    else:
        _warn_all(problems)
        say(f"{sum(counts.values())} samples can be read, {len(problems)} problems")
    return int(bool(problems))


def show(
    data: Path, /, *, name: Annotated[str | None, Parameter("--id")] = None, report: Report = Report()
) -> None:
    """Show the number of samples of each task, or one sample.

    **Examples**

        vitron data show mine/
        vitron data show mine/ --id 5-0

    Args:
        data: Folder with data.jsonl, or the file.
        name: Id of one sample to show in full.
    """
    from rich.table import Table

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
        say(found[0].model_dump_json(exclude_none=True) if report.json else _as_text(found[0]))
        return
    rows: list[dict[str, Any]] = [
        {"task": task, "split": split, "samples": count} for (task, split), count in sorted(counts.items())
    ]
    if report.json:
        for row in rows:
            emit(row)
        return
    table = Table("task", "split", "samples")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    show_table(table)


def _warn_all(sentences: Sequence[str]) -> None:
    for sentence in sentences[:MAX_SHOWN]:
        warn(sentence)
    if len(sentences) > MAX_SHOWN:
        warn(f"and {len(sentences) - MAX_SHOWN} more")


def _as_text(sample: Sample) -> str:
    """Return a sample as text."""
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
