# SPDX-License-Identifier: Apache-2.0
"""How the command speaks: one sentence per error, progress on stderr."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console

from pixelsmith.store.errors import JobFolderError

stdout, stderr = Console(), Console(stderr=True)
# what a user can cure
ERRORS = (ValueError, TypeError, OSError, ImportError, NotImplementedError, JobFolderError)


def fail(message: str, code: int = 2) -> NoReturn:
    """Say why it cannot be done and exit."""
    typer.echo(f"pixelsmith: {message}", err=True)
    raise typer.Exit(code)


def warn(message: str) -> None:
    """Say something that does not end the run, on stderr."""
    stderr.print(f"pixelsmith: {message}", style="yellow", soft_wrap=True, highlight=False, markup=False)


def say(message: str) -> None:
    """Say something on stdout, as it is."""
    stdout.print(message, soft_wrap=True, highlight=False, markup=False)


def one_line(error: BaseException) -> str:
    """Return what an error says, on one line."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return " ".join(text.split()) or type(error).__name__


@contextmanager
def user_errors(debug: bool) -> Generator[None]:
    """Turn the errors that a user can cure into one sentence and exit code 2, unless debugging."""
    try:
        yield
    except ERRORS as error:
        if debug:
            raise
        fail(one_line(error))


def bytes_in_words(count: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def seconds_in_words(seconds: float) -> str:
    """Return a time as people read it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
