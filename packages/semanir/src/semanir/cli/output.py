# SPDX-License-Identifier: Apache-2.0
"""How the command speaks: one sentence per error, progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def fail(message: str) -> NoReturn:
    """Say why nothing can be done and exit with code 2."""
    typer.echo(f"semanir: {message}", err=True)
    raise typer.Exit(2)


@contextmanager
def user_errors(debug: bool) -> Generator[None, None, None]:
    """Turn the errors that a user can cure into one sentence and exit code 2, unless debugging."""
    try:
        yield
    except (ValueError, TypeError, OSError) as error:
        if debug:
            raise
        fail(" ".join(str(error).split()))
    except KeyboardInterrupt:
        typer.echo("semanir: stopped; run the same command again to go on", err=True)
        sys.exit(130)


def progress_bar(console: Console) -> Progress:
    """Return a bar with counts and remaining time; silent when stderr is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


@contextmanager
def tile_progress(console: Console, description: str) -> Generator[Callable[[int, int], None], None, None]:
    """Show the tiles of one image; yields a callback of tiles done and tiles in all."""
    with progress_bar(console) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
