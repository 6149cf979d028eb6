# SPDX-License-Identifier: Apache-2.0
"""How the command speaks: results on stdout, one sentence per error and progress on stderr."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

stdout, stderr = Console(), Console(stderr=True)
# a table of names is read line by line: longer lines may wrap, but no cell is cut
_TABLE_WIDTH = 132


def fail(message: str) -> NoReturn:
    """Say why nothing can be done and exit with code 2."""
    typer.echo(f"diffeat: {message}", err=True)
    raise typer.Exit(2)


def one_line(error: BaseException) -> str:
    """Return what an error says, on one line."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    # a KeyError shows its argument's repr
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split()) or type(error).__name__


@contextmanager
def user_errors(debug: bool) -> Generator[None]:
    """Turn the errors that a user can cure into one sentence and exit code 2, unless debugging."""
    try:
        yield
    except (ValueError, TypeError, LookupError, OSError, ImportError, RuntimeError) as error:
        if debug or isinstance(error, typer.Exit):
            raise
        fail(one_line(error))
    except KeyboardInterrupt:
        typer.echo("diffeat: stopped; run the same command again to go on", err=True)
        sys.exit(130)


def count(number: int, what: str) -> str:
    """Say how many: ``1 image``, ``2 images``, ``3 matches``."""
    return f"{number} {what}{'' if number == 1 else 'es' if what.endswith('ch') else 's'}"


def say(message: str) -> None:
    """Say what was done, on stderr."""
    stderr.print(message, soft_wrap=True, highlight=False, markup=False)


def show(table: Table) -> None:
    """Print a table in full, whatever the width of the terminal."""
    Console(width=max(stdout.width, _TABLE_WIDTH)).print(table)


@contextmanager
def quiet_loading() -> Generator[None]:
    """Keep the libraries' own bars off stderr unless it is a terminal, and what they warn each other of."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    both = [diffusers_logging, transformers_logging]
    shown = [each for each in both if each.is_progress_bar_enabled()] if not stderr.is_terminal else []
    for each in shown:
        each.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # diffeat's users cannot change how diffusers calls the hub
            warnings.filterwarnings("ignore", message=".*local_dir_use_symlinks")
            yield
    finally:
        for each in shown:
            each.enable_progress_bar()


def warn(message: str) -> None:
    """Say something that does not end the run, on stderr."""
    stderr.print(f"diffeat: {message}", style="yellow", soft_wrap=True, highlight=False, markup=False)


def report_broken(failures: dict[str, str]) -> None:
    """Name what failed and exit with code 1, if anything did."""
    for name, reason in failures.items():
        warn(f"{name} was passed over: {reason}")
    if failures:
        raise typer.Exit(1)


@contextmanager
def progress(description: str) -> Generator[Callable[[int, int], None]]:
    """Show one bar, silent when stderr is no terminal; yields a callback of what is done and of all."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=stderr,
        disable=not stderr.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
