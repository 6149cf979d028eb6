# SPDX-License-Identifier: Apache-2.0
"""How the command speaks: one sentence per error, results on stdout, all else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from vitron.errors import explain

stdout, stderr = Console(), Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON object per result on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Out = Annotated[str, typer.Option("--out", "-o", metavar="FOLDER", help="Where the files go.")]


def fail(message: str) -> NoReturn:
    """Say why nothing can be done and exit with code 2."""
    typer.echo(f"vitron: {message}", err=True)
    raise typer.Exit(2)


def say(message: str) -> None:
    """Say something on stdout, as it is."""
    stdout.print(message, soft_wrap=True, highlight=False, markup=False)


def warn(message: str) -> None:
    """Say something that does not end the run, on stderr."""
    stderr.print(f"vitron: {message}", style="yellow", soft_wrap=True, highlight=False, markup=False)


def read_text(text: str) -> str:
    """Return an argument, or what comes on stdin if it is ``-``."""
    return sys.stdin.read() if text == "-" else text


@contextmanager
def user_errors(debug: bool) -> Generator[None]:
    """Turn the errors that a user can cure into one sentence and exit code 2, unless debugging."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        if debug or isinstance(error, typer.Exit):
            raise
        fail(explain(error))
