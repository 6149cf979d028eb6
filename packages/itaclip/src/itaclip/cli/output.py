# SPDX-License-Identifier: Apache-2.0
"""How the command speaks: one sentence per error, progress on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

stdout, stderr = Console(), Console(stderr=True)


def fail(message: str) -> NoReturn:
    """Say why nothing can be done and exit with code 2."""
    typer.echo(f"itaclip: {message}", err=True)
    raise typer.Exit(2)


def warn(message: str, *, style: str = "yellow") -> None:
    """Say something that does not end the run, on stderr."""
    stderr.print(f"itaclip: {message}", style=style, soft_wrap=True, highlight=False, markup=False)


def one_line(error: BaseException) -> str:
    """Return what an error says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def user_errors(debug: bool) -> Generator[None, None, None]:
    """Turn the errors that a user can cure into one sentence and exit code 2, unless debugging."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError, NotImplementedError) as error:
        if debug:
            raise
        fail(one_line(error))
    except KeyboardInterrupt:
        typer.echo("itaclip: stopped; run the same command again to go on", err=True)
        sys.exit(130)


@contextmanager
def quiet_libraries() -> Generator[None]:
    """Keep log lines of libraries off the screen for a while: what matters of them comes as an error."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def progress_bar() -> Progress:
    """Return a bar with counts and remaining time; silent when stderr is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=stderr,
        disable=not stderr.is_terminal,
        transient=True,
    )


@contextmanager
def steps(description: str, total: int | None = None) -> Generator[Callable[[int, int | None], None]]:
    """Show one bar; yields a callback of what is done and what there is in all, if that is known."""
    with progress_bar() as bar:
        task = bar.add_task(description, total=total)
        yield lambda done, all_of_it: bar.update(task, completed=done, total=all_of_it)
