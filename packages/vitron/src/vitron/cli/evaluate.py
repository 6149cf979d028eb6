# SPDX-License-Identifier: Apache-2.0
"""``vitron evaluate``: scores of a model on a data set, beside the published ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from common_kernels.runtime.cli import Output, emit, progress, say, show, warn
from common_kernels.runtime.fingerprint import digest_file, digest_model
from common_kernels.runtime.processes import join_processes
from cyclopts import Group, Parameter

from vitron.cli.options import OUTPUT, ModelDevice, Specialists, load
from vitron.evaluation.options import EvaluationOptions
from vitron.protocol.sampling import SamplingParams
from vitron.specialists.options import SpecialistOptions

if TYPE_CHECKING:
    from vitron.evaluation.figures import Figure
    from vitron.evaluation.images import Embed
    from vitron.evaluation.readers import Item
    from vitron.evaluation.run import Evaluation
    from vitron.protocol.messages import MessageGenerator
    from vitron.specialists.registry import SpecialistRegistry

MAX_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOutput(Output):
    """Folder of the rows, and how the scores are reported.

    Attributes:
        output: Folder of the rows of finished samples.
    """

    output: Annotated[Path, Parameter(alias="-o", group=OUTPUT)] = Path("vitron-evaluation")


def evaluate(
    task: str,
    data: Path,
    /,
    *,
    model: str = "vitron-tiny",
    replies: Path | None = None,
    seed: int = 0,
    options: Annotated[
        EvaluationOptions, Parameter(name="*", group=Group("Evaluation", sort_key=1))
    ] = EvaluationOptions(),
    specialists: Specialists = SpecialistOptions(),
    machine: ModelDevice = ModelDevice(),
    output: EvaluationOutput = EvaluationOutput(),
) -> int:
    """Evaluate a model on a data set, and show the published scores of the task.

    Tasks: caption, dialogue, image_editing, image_to_video, invocation, referring_box,
    referring_segmentation, region_caption, text_to_image, text_to_video, video_grounding,
    video_segmentation, vqa.

    Each score has its 95 % confidence interval; where the data have several turns or groups, so has each of
    them. A call that a specialist cannot run counts as a miss.

    A run that was stopped resumes. Under accelerate launch (on CPUs torchrun) the processes share the
    samples. Messages are generated greedily. Exit code 1 if samples failed.

    **Examples**

        vitron evaluate referring_segmentation refcoco/ --layout refcoco --split testA
        vitron evaluate invocation mine/ --limit 200 --json > scores.json
        accelerate launch --num_processes 4 -m vitron evaluate vqa vqa/ --layout vqa

    Args:
        task: Name of the task.
        data: Folder, or file, of the data set.
        model: Shipped name, folder, or hub id.
        replies: Given messages instead of a model: lines {"id": .., "reply": ..}.
        seed: Random seed of the specialists.
    """
    from common_kernels.runtime.hub import resolve_device

    from vitron.evaluation.readers import read_items
    from vitron.evaluation.run import evaluate as run
    from vitron.evaluation.tasks import TASKS

    if task not in TASKS:
        raise ValueError(f"the task must be one of {', '.join(TASKS)}, got {task!r}")
    processes = join_processes(machine.device)
    device = str(resolve_device(processes.device(machine.device)))
    machine = ModelDevice(device=device, dtype=machine.dtype)
    items = read_items(data, task, layout=options.layout, split=options.split, limit=options.limit)
    source, registry = _source(model, replies, machine, specialists, options.batch_size)
    settings = {
        "task": task,
        "data": [str(data.resolve()), *(digest_file(each) for each in _lines(data))],
        "model": _model_digest(model) if replies is None else digest_file(replies),
        "options": asdict(replace(options, limit=None, batch_size=1)),
        "specialists": _specs(registry),
        "seed": seed,
    }
    sampling = SamplingParams(
        max_new_tokens=options.max_new_tokens, constrained=options.constrained, seed=seed
    )
    with progress(task) as on_item:
        found = run(
            TASKS[task],
            items,
            source,
            specialists=registry,
            sampling=sampling,
            embed=_embed(options.clip, machine.device),
            folder=output.output,
            settings=settings,
            overwrite=output.overwrite,
            processes=processes,
            workers=options.batch_size,
            on_item=on_item,
        )
    if processes.is_main:
        _report(task, settings, found, json=output.json)
    return int(bool(found.failures))


def _source(
    model: str, replies: Path | None, machine: ModelDevice, specialists: SpecialistOptions, batch_size: int
) -> tuple[Callable[[Item], MessageGenerator], SpecialistRegistry]:
    """Return the generator of each sample's message, and the specialists for its calls."""
    if replies is None:
        from vitron.model.batching import ContinuousBatcher

        vitron, registry = load(model, machine, specialists)
        generator = vitron if batch_size == 1 else ContinuousBatcher(vitron, rows=batch_size)
        return lambda _: generator, registry
    from vitron.evaluation.answers import ScriptedGenerator, read_replies
    from vitron.specialists.registry import SpecialistRegistry

    given = read_replies(replies)

    def scripted(item: Item) -> MessageGenerator:
        if item.sample.id not in given:
            raise ValueError(f"{replies} holds no reply for {item.sample.id}")
        return ScriptedGenerator([given[item.sample.id]])

    return scripted, specialists.apply(SpecialistRegistry(device=machine.device).discover())


def _embed(clip: str | None, device: str) -> Embed | None:
    if clip is None:
        return None
    from vitron.evaluation.clip import load_embed

    return load_embed(clip, device=device)


def _model_digest(model: str) -> str:
    from common_kernels.runtime.hub import find_model

    from vitron.shipped import SHIPPED

    return digest_model(find_model(model, shipped=SHIPPED))


def _lines(data: Path) -> list[Path]:
    """Return the file of lines of a data set in the format of vitron."""
    from vitron.data.files import FILE

    return [each for each in (data, data / FILE) if each.is_file()]


def _specs(registry: SpecialistRegistry) -> dict[str, list[dict[str, Any]]]:
    """Return the specialists that run the calls of each module, in their order: the scores depend on them."""
    from vitron.protocol.modules import MODULES

    asked = {module.name: registry.for_module(module.name) for module in MODULES}
    return {
        module: [registry.spec(name).model_dump(mode="json") for name in names]
        for module, names in asked.items()
    }


def _plain(figures: Mapping[str, Figure]) -> dict[str, dict[str, float]]:
    return {name: figure._asdict() for name, figure in figures.items()}


def _report(task: str, settings: dict[str, Any], found: Evaluation, *, json: bool) -> None:
    from rich.table import Table

    from vitron.evaluation.published import PUBLISHED

    published = PUBLISHED.get(task, ())
    if json:
        emit(
            {
                "settings": settings,
                "scores": found.scores,
                "figures": _plain(found.figures),
                "parts": {name: _plain(figures) for name, figures in found.parts.items()},
                "samples": found.evaluated,
                "resumed": found.resumed,
                "failures": found.failures,
                "published": [each._asdict() for each in published],
            }
        )
        return
    for name, sentence in list(found.failures.items())[:MAX_SHOWN]:
        warn(f"{name}: {sentence}")
    parts = {f"{task}, {found.evaluated} samples": found.figures} | found.parts
    for title, figures in parts.items():
        table = Table("score", "here", "95 % interval", "samples", title=title)
        for name, each in figures.items():
            table.add_row(name, f"{each.value:.4f}", f"{each.low:.4f} to {each.high:.4f}", str(each.samples))
        show(table)
    if published:
        paper = Table("benchmark", "score", "paper", "without synergy", "best other", title="As published")
        for each in published:
            without = "" if each.without_synergy is None else f"{each.without_synergy:.4f}"
            other = f"{each.rival:.4f} {each.rival_name}"
            paper.add_row(each.benchmark, each.metric, f"{each.vitron:.4f}", without, other)
        show(paper)
    failed = len(found.failures)
    say(f"{found.evaluated} samples, {found.resumed} of them from an earlier run, {failed} failed")
