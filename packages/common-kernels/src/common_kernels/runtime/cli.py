# SPDX-License-Identifier: Apache-2.0
"""The frame of a command line: application, shared options, errors as sentences, exit codes, progress."""

# no annotations from __future__: cyclopts would look up inherited ones in the module of the subclass
import json as jsonlib
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Group, Parameter
from rich.console import Console

from common_kernels.runtime.processes import leave_processes

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

__all__ = [
    "Device",
    "Machine",
    "OnProgress",
    "Output",
    "OutputPath",
    "Report",
    "create_app",
    "emit",
    "explain",
    "program_name",
    "progress",
    "progress_bars",
    "run_app",
    "say",
    "show",
    "stderr",
    "stdout",
    "warn",
]

OnProgress = Callable[[int, int], None]
"""Called with what is done and with all there is."""

EXIT_DONE, EXIT_FAILED_ITEMS, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

stdout, stderr = Console(), Console(stderr=True)
# of the process, not of a context: threads report under it, too
_program = ""
# errors whose text alone tells a user what to change; of others the traceback may be wanted
_TOLD = (ValueError, OSError, ImportError, NotImplementedError, MemoryError)
_CAUGHT = (*_TOLD, TypeError, LookupError, RuntimeError)
# tables are read line by line: longer lines may wrap, but no cell is cut
_TABLE_WIDTH = 132


_MACHINE, _OUTPUT = Group("Machine", sort_key=8), Group("Output", sort_key=9)

OutputPath = Annotated[Path, Parameter(alias="-o", group=_OUTPUT)]
"""Option ``-o/--output`` of a command that discards nothing, such as a demo: ``output: OutputPath``."""


@Parameter(name="*", group=_MACHINE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Where a command computes.

    Attributes:
        device: Device: auto, cpu, cuda[:n], xpu[:n] or mps; auto is the accelerator if there is one.
        dtype: Compute dtype; auto is float32 on CPU.
    """

    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


@Parameter(name="*", group=_MACHINE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Machine(Device):
    """Where and how a command computes.

    Attributes:
        batch_size: Number of items computed together.
        seed: Random seed.
    """

    batch_size: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"--batch-size must be at least 1, got {self.batch_size}")
        if self.seed < 0:
            raise ValueError(f"--seed must be at least 0, got {self.seed}")


@Parameter(name="*", group=_OUTPUT)
@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a command reports.

    Attributes:
        json: One JSON object per result on stdout.
        debug: Traceback of an error instead of one sentence.
    """

    json: Annotated[bool, Parameter(negative="")] = False
    debug: Annotated[bool, Parameter(negative="")] = False


@Parameter(name="*", group=_OUTPUT)
@dataclass(frozen=True, slots=True, kw_only=True)
class Output(Report):
    """Where a command writes, and how it reports.

    Attributes:
        output: File for one input file, else a folder.
        overwrite: Discard earlier results.
    """

    output: Annotated[Path, Parameter(alias="-o")]
    overwrite: Annotated[bool, Parameter(negative="")] = False


def create_app(name: str, help: str, *, distribution: str | None = None) -> App:
    """Create the application object of a package.

    Commands are registered by the path of their function, so that only the one that runs is imported:
    ``app.command("pkg.cli.restore:restore", name="restore")``.

    Args:
        name: Name of the program.
        help: Markdown: what the program does, and examples in an indented block.
        distribution: Name of the distribution whose version is shown, if it is not that of the program.
    """
    return App(
        name=name,
        help=help,
        help_format="markdown",
        help_flags=("--help", "-h"),
        version=lambda: f"{name} {version(distribution or name)}",
        version_flags=("--version",),
        default_parameter=Parameter(negative_iterable=()),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )


def run_app(app: App, tokens: Sequence[str] | None = None) -> int:
    """Parse, run the command, and turn what a user can cure into one sentence on stderr.

    Args:
        app: From :func:`create_app`.
        tokens: Arguments; those of the process if ``None``.

    Returns:
        Exit code: 0 all done, 1 some items failed, 2 wrong usage or input, 130 interrupted.
    """
    tokens = list(sys.argv[1:] if tokens is None else tokens)
    global _program
    _program = app.name[0]
    debug = "--debug" in tokens
    try:
        _load_overview(app, tokens)
        code = app(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _fail(f"{explain(error)} ({_help_hint(app, tokens)})")
    except BrokenPipeError:  # the reader of stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED_ITEMS
    except _CAUGHT as error:
        if debug:
            raise
        hint = "" if _is_told(error, app) else " (--debug shows the traceback)"
        return _fail(f"{explain(error)}{hint}")
    except KeyboardInterrupt:
        if debug:
            raise
        warn("interrupted; run the same command again to resume")
        return EXIT_INTERRUPTED
    finally:
        leave_processes()
    return code if isinstance(code, int) else EXIT_DONE


def _is_told(error: Exception, app: App) -> bool:
    """Whether the text of an error was written for a user: that of a dictionary or of torch was not."""
    kind = type(error)
    package = kind.__module__.partition(".")[0]
    return isinstance(error, _TOLD) or kind is LookupError or package == app.name[0].replace("-", "_")


def _load_overview(app: App, tokens: Sequence[str]) -> None:
    """Import the commands that an overview lists by the first lines of their docstrings."""
    _, apps, rest = app.parse_commands(list(takewhile(lambda token: not token.startswith("-"), tokens)))
    if not rest:
        for name in apps[-1]:
            _ = apps[-1][name]


def _fail(message: str) -> int:
    _line(message, style="red")
    return EXIT_USAGE


def _help_hint(app: App, tokens: Sequence[str]) -> str:
    words, _, _ = app.parse_commands(tokens)
    return f"see {' '.join([app.name[0], *words, '--help'])}"


def program_name() -> str:
    """Return the name of the program that :func:`run_app` runs, empty outside."""
    return _program


def explain(error: BaseException) -> str:
    """Return what an error says, on one line.

    A missing file is named before the reason; of pydantic's many problems the first is named with its place.
    """
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory: take a smaller batch, image or tile, or another device"
    if type(error).__name__ == "ValidationError" and hasattr(error, "errors"):
        problem: Any = error  # of pydantic, which not every package has
        first = problem.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}".removeprefix(": ").replace("Value error, ", "")
    # a KeyError shows its argument's repr
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(text).split()) or type(error).__name__


def say(message: str) -> None:
    """Print a result on stdout, as it is."""
    stdout.print(message, soft_wrap=True, highlight=False, markup=False)


def warn(message: str) -> None:
    """Print something that does not end the run on stderr, after the name of the program."""
    _line(message, style="yellow")


def _line(message: str, *, style: str) -> None:
    text = f"{_program}: {message}".removeprefix(": ")
    stderr.print(text, style=style, soft_wrap=True, highlight=False, markup=False)


def show(table: "Table") -> None:
    """Print a table on stdout in full, whatever the width of the terminal."""
    Console(width=max(stdout.width, _TABLE_WIDTH)).print(table)


def emit(result: object) -> None:
    """Print one JSON object on a line of stdout; other processes' lines cannot fall into it.

    Raises:
        TypeError: If JSON cannot hold the result.
    """
    sys.stdout.write(jsonlib.dumps(result, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def progress_bars() -> "Progress":
    """Return bars with counts and remaining time on stderr; silent where stderr is not a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
def progress(description: str) -> Generator[OnProgress]:
    """Show one bar.

    Yields:
        A function that takes what is done and all there is.
    """
    with progress_bars() as bars:
        task = bars.add_task(description, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
