# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import pytest
from common_kernels import BackendUnavailableError
from common_kernels.runtime import cli
from common_kernels.runtime.cli import Machine, Output, Report
from cyclopts import Parameter
from pydantic import BaseModel


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a method.

    Attributes:
        stride: Stride of the windows in pixels.
    """

    stride: int = 28

    def __post_init__(self):
        if self.stride < 1:
            raise ValueError(f"stride must be positive, got {self.stride}")


class Item(BaseModel):
    size: int


@pytest.fixture
def seen():
    return []


@pytest.fixture
def app(seen):
    app = cli.create_app("common-kernels", "Do it.\n\n**Examples**\n\n    common-kernels run a.png -o b.png")

    @app.command
    def run(
        inputs: list[str],
        /,
        *,
        output: Output,
        options: Annotated[Options, Parameter(name="*", group="Method")] = Options(),
        machine: Machine = Machine(),  # noqa: B008
    ) -> int:
        """Run it.

        Args:
            inputs: Files or folders.
        """
        seen.append((inputs, output, options, machine))
        return 1 if "bad" in inputs else 0

    @app.command
    def fail(kind: str, /, *, report: Report = Report()) -> None:  # noqa: B008
        """Raise an error."""
        errors = {
            "value": ValueError("a\nb"),
            "key": KeyError("name"),
            "file": FileNotFoundError(2, "No such file", "x.png"),
            "lookup": LookupError("no such name"),
            "own": BackendUnavailableError("no such folder"),
            "runtime": RuntimeError("shape mismatch"),
            "memory": MemoryError(),
            "stop": KeyboardInterrupt(),
            "bug": AssertionError("ours"),
        }
        if kind == "pydantic":
            Item.model_validate({"size": "x"})
        raise errors[kind]

    return app


def test_options_are_the_fields_of_the_configuration(app, seen):
    tokens = ["run", "a", "b", "-o", "out", "--stride", "7", "--batch-size=2", "--overwrite", "--seed", "3"]
    assert cli.run_app(app, tokens) == 0
    ((inputs, output, options, machine),) = seen
    assert inputs == ["a", "b"]
    assert output == Output(output=Path("out"), overwrite=True)
    assert options == Options(stride=7)
    assert machine == Machine(batch_size=2, seed=3)


def test_exit_codes_of_commands_are_returned(app):
    assert cli.run_app(app, ["run", "bad", "-o", "x"]) == 1


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        (["run", "a"], "--output requires an argument"),
        (["run", "-o", "x"], "INPUTS requires an argument"),
        (["run", "a", "-o", "x", "--strid", "3"], "Unknown option: --strid. Did you mean --stride?"),
        (["run", "a", "-o", "x", "--dtype", "int8"], 'Invalid value "int8" for --dtype'),
        (["run", "a", "-o", "x", "--stride", "0"], "stride must be positive, got 0"),
        (["run", "a", "-o", "x", "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["run", "a", "-o", "x", "--seed=-1"], "--seed must be at least 0, got -1"),
        (["nothing"], 'Unknown command "nothing"'),
    ],
)
def test_wrong_usage_is_one_sentence_and_code_2(app, seen, capsys, tokens, sentence):
    assert cli.run_app(app, tokens) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("common-kernels: ")
    assert err.count("\n") == 1
    assert sentence in err
    assert seen == []


def test_wrong_usage_names_the_help_of_the_command(app, capsys):
    cli.run_app(app, ["run", "a"])
    assert "(see common-kernels run --help)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("value", "common-kernels: a b\n"),
        ("key", "common-kernels: name (--debug shows the traceback)\n"),
        ("file", "common-kernels: x.png: no such file\n"),
        ("lookup", "common-kernels: no such name\n"),
        ("own", "common-kernels: no such folder\n"),
        ("runtime", "common-kernels: shape mismatch (--debug shows the traceback)\n"),
        ("memory", "common-kernels: out of memory: take a smaller batch, image or tile, or another device\n"),
        (
            "pydantic",
            "common-kernels: size: Input should be a valid integer, unable to parse string as an integer\n",
        ),
    ],
)
def test_errors_become_one_sentence(app, capsys, kind, sentence):
    assert cli.run_app(app, ["fail", kind]) == 2
    assert capsys.readouterr().err == sentence


def test_debug_shows_the_traceback(app):
    with pytest.raises(ValueError, match="a\nb"):
        cli.run_app(app, ["fail", "value", "--debug"])


def test_an_interrupt_says_how_to_resume(app, capsys):
    assert cli.run_app(app, ["fail", "stop"]) == 130
    assert "run the same command again to resume" in capsys.readouterr().err


def test_threads_warn_under_the_name_of_the_program(capsys):
    app = cli.create_app("common-kernels", "Do it.")

    @app.command
    def run() -> None:
        """Warn from a thread."""
        with ThreadPoolExecutor(1) as pool:
            pool.submit(cli.warn, "a.png was skipped").result()

    cli.run_app(app, ["run"])
    assert capsys.readouterr().err == "common-kernels: a.png was skipped\n"


def test_a_bug_of_ours_is_not_hidden(app):
    with pytest.raises(AssertionError, match="ours"):
        cli.run_app(app, ["fail", "bug"])


def test_help_and_version(app, capsys):
    assert cli.run_app(app, ["--version"]) == 0
    assert capsys.readouterr().out.startswith("common-kernels 0.")
    assert cli.run_app(app, ["--help"]) == 0
    shown = capsys.readouterr().out
    assert "Examples" in shown
    assert "common-kernels run a.png -o b.png" in shown
    assert cli.run_app(app, ["run", "-h"]) == 0
    shown = capsys.readouterr().out
    for text in ("Stride of the windows in pixels.", "--output", "-o", "--device", "Random seed.", "INPUTS"):
        assert text in shown
    assert cli.run_app(app, []) == 0
    assert "Commands" in capsys.readouterr().out


def test_defaults_of_a_group_can_be_changed_by_a_subclass():
    @dataclass(frozen=True, slots=True, kw_only=True)
    class FolderOutput(Output):
        """Folder of a demo."""

        output: Annotated[Path, Parameter(alias="-o")] = Path("demo")

    app = cli.create_app("common-kernels", "Do it.")
    seen = []

    @app.command
    def demo(*, output: FolderOutput = FolderOutput()) -> None:
        """Show it."""
        seen.append(output.output)

    cli.run_app(app, ["demo"])
    cli.run_app(app, ["demo", "-o", "there"])
    assert seen == [Path("demo"), Path("there")]


def test_groups_can_be_extended_in_a_module_without_their_names(tmp_path, monkeypatch, capsys):
    (tmp_path / "far_away.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from common_kernels.runtime.cli import Machine as Base\n"
        "@dataclass(frozen=True, slots=True, kw_only=True)\n"
        "class Mine(Base):\n"
        "    batch_size: int = 8\n"
        "def run(*, machine: Mine = Mine()):\n"
        "    '''Run it on one machine.'''\n"
        "    print(machine.dtype, machine.batch_size)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    app = cli.create_app("common-kernels", "Do it.")
    nested = cli.create_app("nested", "Do more.")
    app.command(nested)
    nested.command("far_away:run", name="run")
    assert cli.run_app(app, ["nested", "--help"]) == 0
    assert "Run it on one machine." in capsys.readouterr().out
    assert cli.run_app(app, ["nested", "run", "--dtype", "bfloat16"]) == 0
    assert capsys.readouterr().out == "bfloat16 8\n"


def test_a_program_may_have_another_name_than_its_distribution(capsys):
    app = cli.create_app("kernels", "Do it.", distribution="common-kernels")
    assert cli.run_app(app, ["--version"]) == 0
    assert capsys.readouterr().out == f"kernels {version('common-kernels')}\n"


def test_emit_writes_one_line(capsys):
    cli.emit({"text": "ü\n"})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"text": "ü\n"}


def test_progress_is_silent_without_a_terminal(capsys):
    with cli.progress("tiles") as on_progress:
        on_progress(1, 2)
    assert capsys.readouterr() == ("", "")


def test_the_frame_imports_nothing_heavy():
    code = (
        "import sys, common_kernels.runtime.cli, common_kernels.runtime.batch\n"
        "print([name for name in ('torch', 'numpy', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
