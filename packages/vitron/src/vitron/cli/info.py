# SPDX-License-Identifier: Apache-2.0
"""``vitron parse``, ``vitron specialists`` and ``vitron doctor``."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from typing import Annotated

import typer
from rich.table import Table

from vitron.cli.output import Debug, Json, read_text, say, stdout, user_errors, warn

Run = Annotated[bool, typer.Option("--run", help="Also load each specialist and give it easy tasks.")]


def parse_command(
    text: Annotated[str, typer.Argument(help="A reply; - reads it from stdin.")],
    legacy: Annotated[
        bool, typer.Option("--legacy", help="With the losses of the published parser, as described.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Show what a reply says: text, calls, signals, pieces and issues, as JSON.

    Exit code 1 if there are issues.

    [bold]Example[/bold]

      vitron parse "On it. <module>C</module><instruction>remove: the dog</instruction>"
    """
    with user_errors(debug):
        from vitron.protocol import parse

        turn = parse(read_text(text), legacy=legacy)
    typer.echo(turn.model_dump_json(indent=2))
    if turn.issues:
        raise typer.Exit(1)


def specialists(json_output: Json = False, debug: Debug = False) -> None:
    """List the specialists that are installed, what they serve, and those that could be set up."""
    with user_errors(debug):
        from vitron.specialists import SpecialistRegistry

        registry = SpecialistRegistry().discover()
        problems, absent = registry.problems, registry.absent
        specs = [registry.spec(name) for name in registry.names if name not in problems | absent]
    for problem in problems.values():
        warn(problem)
    if json_output:
        for spec in specs:
            typer.echo(spec.model_dump_json())
        return
    table = Table("specialist", "what it does", "modules", "memory (MB)", "licence")
    for spec in specs:
        memory = f"{spec.memory_bytes / 1e6:.0f}"
        table.add_row(spec.name, spec.summary, "\n".join(spec.tasks), memory, spec.licence)
    stdout.print(table)
    for sentence in absent.values():
        say(sentence)


def doctor(run: Run = False, json_output: Json = False, debug: Debug = False) -> None:
    """Check the installation: versions, specialists that cannot be used, modules that nobody serves.

    Exit code 1 if something is wrong.
    """
    with user_errors(debug):
        from vitron.protocol import MODULES
        from vitron.shipped import list_models
        from vitron.specialists import SpecialistRegistry, check_specialist

        registry = SpecialistRegistry().discover()
        wrong = list(registry.problems.values())
        absent = registry.absent
        usable = [name for name in registry.names if name not in registry.problems | absent]
        served = {module.name: list(registry.for_module(module.name)) for module in MODULES}
        wrong += [f"nobody serves {name}" for name, names in served.items() if not names]
        if run:
            for name in usable:
                wrong += [f"{name}: {fault}" for fault in check_specialist(registry.create(name))]
    versions = {name: version(name) for name in ("vitron", "numpy", "pillow", "pydantic")}
    versions["python"] = platform.python_version()
    if json_output:
        typer.echo(json.dumps({"versions": versions, "served": served, "absent": absent, "problems": wrong}))
    else:
        say(", ".join(f"{name} {number}" for name, number in versions.items()))
        for name, names in served.items():
            say(f"{name}: {', '.join(names) or 'nobody'}")
        say(f"models: {', '.join(list_models()) or 'none'}")
        for sentence in absent.values():
            say(sentence)
        for sentence in wrong:
            warn(sentence)
        if not wrong:
            say(f"{len(usable)} specialists, nothing wrong")
    if wrong:
        raise typer.Exit(1)
