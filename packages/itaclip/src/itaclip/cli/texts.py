# SPDX-License-Identifier: Apache-2.0
"""``itaclip texts``: auxiliary texts made by a language model, checked, shown."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from common_kernels.runtime.cli import Device, Output, Report, emit, progress, say, show, warn
from cyclopts import Group, Parameter

from itaclip.cli.options import Changes, ClassNames, apply_changes, changes_of
from itaclip.text.answers import Task
from itaclip.text.classes import ClassList, shipped_classes
from itaclip.text.files import TREES
from itaclip.text.sources import KINDS, SHIPPED_KIND, aux_texts, shipped_texts, write_texts

if TYPE_CHECKING:
    TaskOptions = Changes
else:
    TaskOptions = Annotated[
        changes_of(Task), Parameter(name="*", group=Group("Generation", sort_key=4), show_default=False)
    ]


def make(
    *,
    output: Output,
    classes: ClassNames,
    model: str,
    task: TaskOptions = None,
    device: Device = Device(),
    cache: bool = True,
) -> int:
    """Let a language model on this machine write one text per class, and check each answer.

    Answers are cached: a run that was stopped is resumed by the same command, and the same command gives the
    same texts. The kind is by default the one that the method uses for a shipped list, else definitions.

    **Examples**

        itaclip texts make -c voc21 -o voc21.yaml --model ./my-instruct-model
        itaclip texts make -c classes.txt -o same.txt --kind synonyms --model org/instruct-model --seed 1

    Exit code: 0 all done, 1 some classes got no usable text (the others are written), 2 nothing was done.

    Args:
        model: Folder or hub id of a causal language model with safetensors weights.
        cache: Cache of the answers on disk.
    """
    wanted = classes.parse()
    _check_output(output.output, overwrite=output.overwrite)
    chosen = SHIPPED_KIND.get(classes.classes, "definitions")
    asked = apply_changes(Task(kind="synonyms" if chosen == "synonyms" else "definitions"), task)
    from itaclip.text.llm import LLMSource

    with progress("asking") as on_progress:
        source = LLMSource(
            model,
            task=asked,
            device=device.device,
            dtype=device.dtype,
            cache="auto" if cache else None,
            progress=on_progress,
        )
        answers = source.answers(wanted.foreground)
    texts = {answer.name: answer.text for answer in answers if answer.text is not None}
    if not texts:
        first = answers[0]
        raise ValueError(
            f"the model gave no usable text (its answer for {first.name!r}: {first.fault}): "
            "try more --retries, a --seed or another model"
        )
    write_texts(output.output, texts)
    for answer in answers:
        if output.json:
            emit(asdict(answer))
        if answer.text is None:
            warn(f"no usable text for {answer.name!r} in {answer.attempts} answers: {answer.fault}")
    warn(f"{len(texts)} of {len(answers)} texts are in {output.output}")
    return int(len(texts) < len(answers))


def check(texts: str, /, *, classes: ClassNames, model: str = "ViT-B-16", report: Report = Report()) -> int:
    """Check texts against classes: one row each, by name; all prompts short enough; none given twice.

    **Examples**

        itaclip texts check mine.yaml -c voc21
        itaclip texts check aux.txt -c classes.txt --background-first --model ViT-L-14

    Exit code: 0 usable (remarks are allowed), 1 a prompt or name cannot be used, 2 rows do not match.

    Args:
        texts: File, or name of texts inside this package.
        model: Model whose tokenizer counts: shipped name, folder, hub id, or open_clip's name.
    """
    wanted = classes.parse()
    rows = aux_texts(texts, wanted)
    from itaclip.loading import load_tokenizer
    from itaclip.text.review import review_texts

    review = review_texts(wanted, rows or [() for _ in wanted.foreground], load_tokenizer(model))
    if report.json:
        emit({"classes": len(wanted), "names": len(wanted.names), **asdict(review)})
    else:
        for sentence in (*review.faults, *review.remarks):
            warn(sentence)
        count = sum(map(len, rows or []))
        say(
            f"{count} texts for {len(wanted.foreground)} classes; "
            f"the longest prompt has {review.longest} of {review.context} tokens"
        )
    return int(bool(review.faults))


def show_texts(
    name: str | None = None,
    /,
    *,
    output: Annotated[Path | None, Parameter(alias="-o", group=Group("Output", sort_key=9))] = None,
    overwrite: Annotated[bool, Parameter(negative="", group=Group("Output", sort_key=9))] = False,
    report: Report = Report(),
) -> None:
    """Show the class lists and texts inside this package.

    **Examples**

        itaclip texts show
        itaclip texts show coco-object
        itaclip texts show voc21 -o mine.yaml

    Args:
        name: Class list, or definitions, or synonyms; default is all lists.
        output: File to write the texts to, as a start for your own.
        overwrite: Discard earlier results.
    """
    if name is None:
        if output is not None:
            raise ValueError("--output needs the name of a list with texts")
        _show_lists(json=report.json)
        return
    if name not in (*shipped_classes(), *KINDS):
        raise ValueError(f"no list {name!r}: choose one of {', '.join((*shipped_classes(), *KINDS))}")
    texts = shipped_texts(name) if name in KINDS or name in SHIPPED_KIND else {}
    if output is not None:
        if not texts:
            raise ValueError(f"{name} has no texts")
        _check_output(output, overwrite=overwrite)
        write_texts(output, texts)
        warn(f"{len(texts)} texts are in {output}")
    elif name in KINDS:
        _show_kind(texts, json=report.json)
    else:
        _show_classes(ClassList.shipped(name), texts, json=report.json)


def _check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse a file that cannot be written, before a model is asked for hours."""
    if output.suffix.lower() not in (*TREES, ".txt"):
        raise ValueError(f"--output must be a .yaml, .json or .txt file, got {output}")
    if output.exists() and not overwrite:
        raise FileExistsError(f"{output} exists: --overwrite replaces it")


def _show_lists(*, json: bool) -> None:
    from rich.table import Table

    table = Table("list", "classes", "names", "background names", "texts")
    for name in shipped_classes():
        classes = ClassList.shipped(name)
        words = len(classes.classes[0]) if classes.background else 0
        kind = SHIPPED_KIND.get(name)
        if json:
            row = {"name": name, "classes": len(classes), "names": len(classes.names)}
            emit({**row, "background_names": words, "texts": kind})
        table.add_row(name, str(len(classes)), str(len(classes.names)), str(words or ""), kind or "")
    if not json:
        show(table)


def _show_kind(texts: dict[str, str], *, json: bool) -> None:
    from rich.table import Table

    if json:
        emit(texts)
        return
    table = Table("name", "text")
    for name, text in texts.items():
        table.add_row(name, text)
    show(table)


def _show_classes(classes: ClassList, texts: dict[str, str], *, json: bool) -> None:
    from rich.table import Table

    table = Table("id", "class", "further names", "text")
    for index, (label, names) in enumerate(zip(classes.labels, classes.classes, strict=True)):
        further = names if index == 0 and classes.background else names[1:]
        if json:
            emit({"id": index, "class": label, "names": names, "text": texts.get(label)})
        table.add_row(str(index), label, ", ".join(further), texts.get(label, ""))
    if not json:
        show(table)
