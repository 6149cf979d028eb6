# SPDX-License-Identifier: Apache-2.0
"""``vitron run``: carries out the calls of a given reply."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitron.cli.output import Debug, Json, Out, read_text, say, user_errors, warn
from vitron.errors import explain

if TYPE_CHECKING:
    from vitron.session.conversation import Conversation, Step, StepResult


def run(
    media: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[IMAGE]...", help="Pictures or clips (GIF, WebP), named in this order."),
    ] = None,
    reply: Annotated[
        str, typer.Option(help="What a model replied, with calls in tags; - reads it from stdin.")
    ] = "-",
    out: Out = "vitron-out",
    seed: Annotated[int, typer.Option(help="For what the words leave open.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say who would do what, and do nothing.")
    ] = False,
    timeout: Annotated[float | None, typer.Option(min=0.01, help="Seconds for one call.")] = None,
    memory: Annotated[int | None, typer.Option(min=1, help="Megabytes for all loaded specialists.")] = None,
    prefer: Annotated[
        list[str] | None, typer.Option(help="Specialist to ask first; may be repeated.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Carry out the calls of a reply and write what they make.

    No language model takes part: the reply is given; vitron chat has one. Pictures are called img_1, img_2
    and on, clips vid_1.

    [bold]Examples[/bold]

      vitron run photo.png --reply "<module>B</module><instruction>segment: the red circle</instruction>"

      vitron run --reply "<module>A</module><instruction>draw: a blue star</instruction>" -o drawn/
    """
    with user_errors(debug):
        from vitron.protocol import parse
        from vitron.protocol.media import read_media
        from vitron.session.conversation import Conversation
        from vitron.specialists import SpecialistRegistry

        registry = SpecialistRegistry(
            memory_bytes=None if memory is None else memory * 1_000_000, timeout=timeout, prefer=prefer or ()
        ).discover()
        talk = Conversation(registry)
        for path in media or []:
            talk.add(read_media(path))
        turn = parse(read_text(reply))
        for issue in turn.issues:
            warn(issue.message)
        steps = talk.plan(turn)
        if not steps:
            raise ValueError("the reply holds no call that can be carried out")
        if dry_run:
            _tell([_planned(step) for step in steps], json_output)
            return
        taken = [path for step in steps for path in sorted(Path(out).glob(f"{step.output}[.-]*"))]
        if taken and not overwrite:
            raise ValueError(f"{taken[0]} is there already: choose another --out, or --overwrite")
        results = talk.run(turn, seed=seed)
        told = [write_result(talk, result, Path(out)) for result in results]
    if turn.text.strip() and not json_output:
        say(turn.text.strip())
    _tell(told, json_output)
    if any(result.error is not None for result in results):
        raise typer.Exit(1)


def _planned(step: Step) -> dict[str, Any]:
    return {
        "module": step.invocation.module,
        "input": step.input,
        "output": step.output,
        "after": list(step.after),
        "specialists": list(step.specialists),
        "error": step.problem,
    }


def write_result(talk: Conversation, result: StepResult, out: Path) -> dict[str, Any]:
    """Write what one call made, and return what there is to say."""
    from vitron.protocol.media import overlay, write_media

    step = result.step
    told: dict[str, Any] = {"module": step.invocation.module, "input": step.input, "output": step.output}
    for failure in result.failures:
        warn(f"{failure}; {result.specialist} was asked instead")
    if result.artefact is None:
        return told | {"error": explain(result.error or RuntimeError("nothing was made"))}
    files = [write_media(result.artefact, out, step.output)]
    if result.artefact.kind == "masks" and step.input is not None:
        shown = overlay(result.artefact, talk.media[step.input])
        files.append(write_media(shown, out, f"{step.output}-overlay"))
    labels = {"labels": list(result.artefact.labels)} if result.artefact.labels else {}
    return told | labels | {"specialist": result.specialist, "files": [str(file) for file in files]}


def _tell(rows: list[dict[str, Any]], json_output: bool) -> None:
    for row in rows:
        if json_output:
            typer.echo(json.dumps(row))
        elif row.get("error"):
            warn(f"{row['module']}: {row['error']}")
        else:
            source = f" from {row['input']}" if row["input"] else ""
            by = row.get("specialist") or ", then ".join(row["specialists"])
            files = " ".join(row.get("files", []))
            say(f"{row['output']}{source}: {row['module']} by {by}{': ' if files else ''}{files}")
