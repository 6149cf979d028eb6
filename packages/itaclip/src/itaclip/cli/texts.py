# SPDX-License-Identifier: Apache-2.0
"""``itaclip texts``: auxiliary texts made by a language model, checked, shown."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from itaclip.cli.options import BackgroundFirst, Classes, Debug, Device, Json, parse_classes
from itaclip.cli.output import fail, stdout, steps, user_errors, warn
from itaclip.text.classes import ClassList, shipped_classes
from itaclip.text.files import TREES
from itaclip.text.sources import KINDS, SHIPPED_KIND, as_source, aux_texts, shipped_texts, write_texts

if TYPE_CHECKING:
    from itaclip.text.prompts import Tokenizer

texts_app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    help="""Make, check and show the definitions and synonyms that are mixed into class names.

    [bold]Examples[/bold]

      itaclip texts show voc21

      itaclip texts make -c "cat, dog, sky" -o animals.yaml --model ./my-instruct-model

      itaclip texts check animals.yaml -c "cat, dog, sky\"""",
)


@texts_app.command()
def make(
    classes: Classes,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .yaml, .json or, in lines 'name >=text', .txt file.")
    ],
    model: Annotated[
        str, typer.Option(help="Folder or hub id of a causal language model with safetensors weights.")
    ],
    kind: Annotated[
        Literal["auto", "definitions", "synonyms"],
        typer.Option(help="auto is the kind that the method uses for a shipped list, else definitions."),
    ] = "auto",
    seed: Annotated[
        int | None, typer.Option(min=0, help="Sample with this seed; without it, the likeliest words.")
    ] = None,
    retries: Annotated[
        int, typer.Option(min=0, help="How often an answer that cannot be used is sent back.")
    ] = 2,
    max_words: Annotated[int, typer.Option(min=3, help="Words that a definition may have.")] = 50,
    batch_size: Annotated[int, typer.Option(min=1, help="Names in one pass.", rich_help_panel="Machine")] = 8,
    background_first: BackgroundFirst = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output file.")] = False,
    device: Device = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Arithmetic; auto is that of the weights.", rich_help_panel="Machine"),
    ] = "auto",
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep the answers.", rich_help_panel="Machine")
    ] = True,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Let a language model on this machine write one text per class, and check each answer.

    Answers are kept: a run that was stopped goes on where it was, and the same run gives the same texts.

    [bold]Examples[/bold]

      itaclip texts make -c voc21 -o voc21.yaml --model ./my-instruct-model

      itaclip texts make -c classes.txt -o same.txt --kind synonyms --model org/instruct-model --seed 1

    Exit code: 0 all done, 1 some classes got no usable text (the others are written), 2 nothing was done.
    """
    with user_errors(debug):
        wanted = parse_classes(classes, background_first=background_first)
        _check_output(output, overwrite)
        from itaclip.text.answers import Task
        from itaclip.text.llm import LLMSource

        chosen = SHIPPED_KIND.get(classes, "definitions") if kind == "auto" else kind
        task = Task(
            kind="synonyms" if chosen == "synonyms" else "definitions",
            max_words=max_words,
            retries=retries,
            seed=seed,
            batch_size=batch_size,
        )
        with steps("asking") as progress:
            source = LLMSource(
                model,
                task=task,
                device=device,
                dtype=dtype,
                cache="auto" if cache else None,
                progress=progress,
            )
            answers = source.answers(wanted.foreground)
        texts = {answer.name: answer.text for answer in answers if answer.text is not None}
        if not texts:
            first = answers[0]
            fail(
                f"the model gave no usable text (its answer for {first.name!r}: {first.fault}): "
                "try more --retries, a --seed or another model"
            )
        write_texts(output, texts)
    for answer in answers:
        if json_output:
            typer.echo(json.dumps(asdict(answer)))
        if answer.text is None:
            warn(f"no usable text for {answer.name!r} in {answer.attempts} answers: {answer.fault}")
    warn(f"{len(texts)} of {len(answers)} texts are in {output}", style="green")
    raise typer.Exit(int(len(texts) < len(answers)))


@texts_app.command()
def check(
    texts: Annotated[str, typer.Argument(help="A file, or the name of texts inside this package.")],
    classes: Classes,
    model: Annotated[
        str, typer.Option(help="Whose tokenizer: shipped name, folder, or open_clip's name of a model.")
    ] = "ViT-B-16",
    background_first: BackgroundFirst = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Check texts against classes: one row each, by name; all prompts short enough; none given twice.

    [bold]Examples[/bold]

      itaclip texts check mine.yaml -c voc21

      itaclip texts check aux.txt -c classes.txt --background-first --model ViT-L-14

    Exit code: 0 usable (remarks are allowed), 1 a prompt or name cannot be used, 2 rows do not match.
    """
    with user_errors(debug):
        wanted = parse_classes(classes, background_first=background_first)
        rows = aux_texts(as_source(texts), wanted)
        tokenizer = _tokenizer(model)
        from itaclip.text.review import review_texts

        review = review_texts(wanted, rows or [() for _ in wanted.foreground], tokenizer)
    if json_output:
        typer.echo(json.dumps({"classes": len(wanted), "names": len(wanted.names), **asdict(review)}))
    else:
        for fault in review.faults:
            warn(fault, style="red")
        for remark in review.remarks:
            warn(remark)
        count = sum(map(len, rows or []))
        stdout.print(
            f"{count} texts for {len(wanted.foreground)} classes; "
            f"the longest prompt has {review.longest} of {review.context} tokens",
            soft_wrap=True,
            highlight=False,
        )
    raise typer.Exit(int(bool(review.faults)))


@texts_app.command()
def show(
    name: Annotated[
        str | None, typer.Argument(help="A class list, or definitions, or synonyms; all lists without it.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the texts here, as a start for your own.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output file.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Show the class lists and texts inside this package.

    [bold]Examples[/bold]

      itaclip texts show

      itaclip texts show coco-object

      itaclip texts show voc21 -o mine.yaml
    """
    with user_errors(debug):
        if name is None:
            if output is not None:
                fail("--output needs the name of a list with texts")
            _show_lists(json_output)
            return
        if name not in (*shipped_classes(), *KINDS):
            fail(f"no list {name!r}: choose one of {', '.join((*shipped_classes(), *KINDS))}")
        has_texts = name in KINDS or name in SHIPPED_KIND
        texts = shipped_texts(name) if has_texts else {}
        if output is not None:
            if not has_texts:
                fail(f"{name} has no texts")
            _check_output(output, overwrite)
            write_texts(output, texts)
            warn(f"{len(texts)} texts are in {output}", style="green")
            return
    if name in KINDS:
        _show_texts(texts, json_output)
    else:
        _show_classes(ClassList.shipped(name), texts, json_output)


def _check_output(output: Path, overwrite: bool) -> None:
    """Refuse a file that cannot be written, before a model is asked for hours."""
    if output.suffix.lower() not in (*TREES, ".txt"):
        fail(f"--output must be a .yaml, .json or .txt file, got {output}")
    if output.exists() and not overwrite:
        fail(f"{output} exists: add --overwrite to replace it")


def _show_lists(json_output: bool) -> None:
    table = Table("list", "classes", "names", "background words", "texts")
    for name in shipped_classes():
        classes = ClassList.shipped(name)
        words = len(classes.classes[0]) if classes.background else 0
        kind = SHIPPED_KIND.get(name)
        if json_output:
            row = {"name": name, "classes": len(classes), "names": len(classes.names)}
            typer.echo(json.dumps({**row, "background_words": words, "texts": kind}))
        table.add_row(name, str(len(classes)), str(len(classes.names)), str(words or ""), kind or "")
    if not json_output:
        stdout.print(table)


def _show_texts(texts: dict[str, str], json_output: bool) -> None:
    if json_output:
        typer.echo(json.dumps(texts))
        return
    table = Table("name", "text")
    for name, text in texts.items():
        table.add_row(name, text)
    stdout.print(table)


def _show_classes(classes: ClassList, texts: dict[str, str], json_output: bool) -> None:
    table = Table("id", "class", "further names", "text")
    for index, (label, names) in enumerate(zip(classes.labels, classes.classes, strict=True)):
        further = names if index == 0 and classes.background else names[1:]
        if json_output:
            row = {"id": index, "class": label, "names": names, "text": texts.get(label)}
            typer.echo(json.dumps(row))
        table.add_row(str(index), label, ", ".join(further), texts.get(label, ""))
    if not json_output:
        stdout.print(table)


def _tokenizer(model: str) -> Tokenizer:
    """Return the tokenizer of a model without loading its weights.

    Raises:
        ValueError: If there is none of this name.
    """
    import open_clip

    from itaclip.loading import ASSETS

    known: list[str] = open_clip.list_models()
    if (ASSETS / model).is_dir():
        name = f"local-dir:{ASSETS / model}"
    elif Path(model).is_dir():
        name = f"local-dir:{model}"
    elif model in known:
        name = model
    elif "/" in model:
        name = f"hf-hub:{model.removeprefix('hf-hub:')}"
    else:
        raise ValueError(f"no model {model!r}: give a shipped name, a folder or a name that open_clip knows")
    return open_clip.get_tokenizer(name)
