# SPDX-License-Identifier: Apache-2.0
"""One contract for all command lines: the same files, options, exit codes, errors and JSON.

Each package runs its main command on its small model. A batch command takes many inputs and goes on past bad
ones; a single command does one job for its inputs.
"""

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

# third-party warnings are not errors for a user either
pytestmark = pytest.mark.filterwarnings("default")


@dataclass(frozen=True, kw_only=True)
class Command:
    """The main command of a package.

    Attributes:
        program: Name of the program.
        name: Name of the command.
        options: Options of a cheap run on the shipped model.
        changed: Options instead of these that change the result.
        output: What ``-o`` names.
        image: Kind of the output that has the size of the input, times ``scale``.
        scale: Factor of the sides.
        batch: Whether the command goes on past a bad input.
        videos: Whether an animation is a video for it, and not an image.
    """

    program: str
    name: str
    options: tuple[str, ...] = ()
    changed: tuple[str, ...]
    output: str = "out"
    image: str | None = None
    scale: int = 1
    batch: bool = True
    videos: bool = False

    def arguments(self, inputs, output, *more, changed=False):
        """Return the arguments of a run."""
        options = self.changed if changed else self.options
        return [self.name, *map(str, inputs), "-o", str(output), "--device", "cpu", "--json", *options, *more]


RESTORE = "<module>R</module><instruction>restore</instruction>"
EXTRACT = ("--model", "tiny-sdxl", "--names", "mid-*", "--size", "64")
UPSCALE = ("--scale", "2", "--num-inference-steps", "2")
COMMANDS = [
    Command(program="semanir", name="restore", changed=("--strength", "0.5"), image="image"),
    Command(
        program="itaclip",
        name="segment",
        options=("--classes", "red thing, blue thing"),
        changed=("--classes", "green thing, blue thing"),
        image="labels",
    ),
    Command(program="diffeat", name="extract", options=EXTRACT, changed=(*EXTRACT, "--timestep", "300")),
    Command(
        program="pixelsmith",
        name="upscale",
        options=UPSCALE,
        changed=(*UPSCALE, "--seed", "1"),
        output="large.png",
        image="image",
        scale=2,
        batch=False,
    ),
    Command(
        program="vitron",
        name="run",
        options=("--reply", RESTORE),
        changed=("--reply", RESTORE, "--seed", "1"),
        image="image",
        batch=False,
        videos=True,
    ),
]
BATCH, SINGLE = [c for c in COMMANDS if c.batch], [c for c in COMMANDS if not c.batch]


def commands(chosen):
    return pytest.mark.parametrize("command", chosen, ids=lambda command: command.program)


def gradient(height=48, width=64):
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns * 255 // width, rows * 255 // height, np.full_like(rows, 90)], -1).astype(
        np.uint8
    )


@pytest.fixture
def files(tmp_path):
    """Files that a folder of a real user holds: ``good`` ones of unusual kinds, and ``bad`` ones."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    image = Image.fromarray(gradient())
    good = {name: folder / name for name in GOOD}
    image.convert("CMYK").save(good["cmyk.jpg"])
    image.quantize(16).save(good["palette.png"], transparency=3)
    Image.fromarray(gradient()[..., 0].astype(np.uint16) * 257).save(good["deep.png"])
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn
    image.save(good["rotated.jpg"], exif=exif)
    image.save(good["animated.gif"], save_all=True, append_images=[ImageOps.mirror(image)], duration=80)
    image.save(good["größe 1 (neu).png"])
    image.save(good["-dash.png"])
    bad = {name: folder / name for name in BAD}
    bad["truncated.jpg"].write_bytes(good["cmyk.jpg"].read_bytes()[:700])
    bad["text.png"].write_text("no image")
    bad["empty.png"].touch()
    return SimpleNamespace(folder=folder, good=good, bad=bad)


GOOD = (
    "cmyk.jpg",
    "palette.png",
    "deep.png",
    "rotated.jpg",
    "animated.gif",
    "größe 1 (neu).png",
    "-dash.png",
)
BAD = ("truncated.jpg", "text.png", "empty.png", "missing.png")


@pytest.fixture
def scripts(packages):
    """Functions that the programs call, as ``module:function``, by program."""
    return {name: path for package in packages for name, path in package.project.get("scripts", {}).items()}


@pytest.fixture
def run(scripts, monkeypatch, capsys):
    """Call a program in this process."""

    def call(program, *arguments):
        module, _, function = scripts[program].partition(":")
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            getattr(import_module(module), function)()
        shown = capsys.readouterr()
        return SimpleNamespace(code=stop.value.code or 0, out=shown.out, err=shown.err)

    return call


def command_of(scripts, program):
    """Return how a new process runs a program, installed in whatever way."""
    module, _, function = scripts[program].partition(":")
    start = f"import sys; from {module} import {function}; sys.argv[0] = {program!r}; {function}()"
    return [sys.executable, "-c", start]


def results_of(text, inputs):
    """Read the JSON objects of a run, check each, and return them by the name of their input."""
    results = [json.loads(line) for line in text.splitlines()]
    for result in results:
        assert result["status"] in {"done", "skipped", "failed"}
        assert result["seconds"] >= 0
        assert ("error" in result) is (result["status"] == "failed")
        assert {"output", "outputs"} & set(result)
    names = {str(path): name for name, path in inputs.items()}
    assert sorted(result["input"] for result in results) == sorted(names)
    return {names[result["input"]]: result for result in results}


def statuses(results):
    return {name: result["status"] for name, result in results.items()}


def written(result):
    """Return the paths that a result names, by kind."""
    named = result.get("outputs", result.get("output"))
    return named if isinstance(named, dict) else {"output": named}


def is_one_sentence(shown, program):
    """Check that nothing but one line, without a traceback, says what is wrong."""
    lines = shown.err.strip().splitlines()
    assert len(lines) == 1, shown.err
    assert lines[0].startswith(f"{program}: ")
    assert shown.out == ""
    return True


def check_outputs(command, results):
    for name, result in results.items():
        paths = written(result)
        assert all(os.path.exists(path) for path in paths.values()), name
        if command.image:
            with Image.open(paths[command.image]) as image:
                size = ImageOps.exif_transpose(image).size
            upright = (48, 64) if name == "rotated.jpg" else (64, 48)
            assert size == (upright[0] * command.scale, upright[1] * command.scale), name


@commands(BATCH)
def test_a_batch_goes_on_past_bad_files_and_does_nothing_twice(command, files, scripts, run, tmp_path):
    output = tmp_path / command.output
    everything = files.good | files.bad
    start = command_of(scripts, command.program)
    first = subprocess.run(
        [*start, *command.arguments(everything.values(), output)],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert first.returncode == 1, first.stderr
    assert "Traceback" not in first.stderr
    results = results_of(first.stdout, everything)
    assert statuses(results) == dict.fromkeys(GOOD, "done") | dict.fromkeys(BAD, "failed")
    for name, path in files.bad.items():
        assert name in results[name]["error"]
        named = [line for line in first.stderr.splitlines() if str(path) in line]
        assert named, f"{name} is not named on stderr"
        assert named[0].startswith(f"{command.program}: ")
    assert "first of 2 frames" in first.stderr
    check_outputs(command, {name: results[name] for name in GOOD})

    again = run(command.program, *command.arguments(files.good.values(), output))
    assert again.code == 0, again.err
    assert statuses(results_of(again.out, files.good)) == dict.fromkeys(GOOD, "skipped")

    one = dict(list(files.good.items())[:1])
    changed = run(command.program, *command.arguments(one.values(), output, changed=True))
    assert changed.code == 0, changed.err
    assert set(statuses(results_of(changed.out, one)).values()) == {"done"}
    replaced = run(command.program, *command.arguments(one.values(), output, "--overwrite", changed=True))
    assert replaced.code == 0, replaced.err
    assert set(statuses(results_of(replaced.out, one)).values()) == {"done"}


@commands(BATCH)
def test_a_folder_is_read_and_an_empty_one_is_an_error(command, files, run, tmp_path):
    for path in files.folder.iterdir():
        if path.name != "-dash.png":
            path.unlink()
    held = {"-dash.png": files.good["-dash.png"]}
    shown = run(command.program, *command.arguments([files.folder], tmp_path / command.output))
    assert shown.code == 0, shown.err
    assert statuses(results_of(shown.out, held)) == {"-dash.png": "done"}
    (tmp_path / "empty").mkdir()
    shown = run(command.program, *command.arguments([tmp_path / "empty"], tmp_path / "other"))
    assert shown.code == 2
    assert is_one_sentence(shown, command.program)
    assert not (tmp_path / "other").exists()


@commands(BATCH)
def test_processes_share_the_inputs_and_agree(command, files, scripts, tmp_path):
    inputs = {name: files.good[name] for name in ("cmyk.jpg", "palette.png", "deep.png")} | {
        "text.png": files.bad["text.png"]
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    run_alike = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    line = command_of(scripts, command.program) + command.arguments(inputs.values(), tmp_path / "out")
    ranks = [
        subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=os.environ | run_alike | {"RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]
    shown = [rank.communicate(timeout=300) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [1, 1], [err for _, err in shown]
    results = results_of("".join(out for out, _ in shown), inputs)
    assert statuses(results) == dict.fromkeys(inputs, "done") | {"text.png": "failed"}
    assert [bool(out.strip()) for out, _ in shown] == [True, True]


@commands(SINGLE)
def test_a_single_job_reads_unusual_files_and_refuses_bad_ones(command, files, run, tmp_path):
    images = {
        name: path for name, path in files.good.items() if not (command.videos and name.endswith("gif"))
    }
    for number, (name, path) in enumerate(images.items()):
        output = tmp_path / f"{number}" / command.output
        shown = run(command.program, *command.arguments([path], output))
        assert shown.code == 0, shown.err
        results = results_of(shown.out, {name: path})
        assert statuses(results) == {name: "done"}
        check_outputs(command, results)
    for name, path in (files.bad | {"inputs": files.folder}).items():
        output = tmp_path / f"of {name}" / command.output
        shown = run(command.program, *command.arguments([path], output))
        assert shown.code == 2
        assert is_one_sentence(shown, command.program)
        assert name in shown.err
        assert not output.exists()


@commands(SINGLE)
def test_a_single_job_is_not_done_twice(command, files, run, tmp_path):
    one = {"cmyk.jpg": files.good["cmyk.jpg"]}
    for changed, more, status in [
        (False, (), "done"),
        (False, (), "skipped"),
        (True, (), "done"),
        (True, ("--overwrite",), "done"),
    ]:
        arguments = command.arguments(one.values(), tmp_path / command.output, *more, changed=changed)
        shown = run(command.program, *arguments)
        assert shown.code == 0, shown.err
        assert statuses(results_of(shown.out, one)) == {"cmyk.jpg": status}, arguments


@commands(COMMANDS)
def test_a_name_may_begin_with_a_dash(command, files, run, tmp_path, monkeypatch):
    monkeypatch.chdir(files.folder)
    arguments = command.arguments([], tmp_path / command.output)
    shown = run(command.program, *arguments, "--", "-dash.png")
    assert shown.code == 0, shown.err
    assert [json.loads(line)["status"] for line in shown.out.splitlines()] == ["done"]


@commands(COMMANDS)
def test_a_device_that_is_not_there_is_one_sentence(command, files, run, tmp_path):
    import torch

    if torch.cuda.device_count() > 7:
        pytest.skip("this machine has a device cuda:7")
    arguments = command.arguments([files.good["deep.png"]], tmp_path / command.output)
    arguments[arguments.index("cpu")] = "cuda:7"
    shown = run(command.program, *arguments)
    assert shown.code == 2
    assert is_one_sentence(shown, command.program)
    assert "cuda:7" in shown.err


@commands(COMMANDS)
def test_debug_shows_the_traceback(command, files, run, tmp_path):
    arguments = command.arguments([files.bad["text.png"]], tmp_path / command.output)
    shown = run(command.program, *arguments)
    assert shown.code == (1 if command.batch else 2)
    assert "text.png" in shown.err
    assert "Traceback" not in shown.err
    with pytest.raises(Exception, match=r"text\.png"):
        run(command.program, *arguments, "--debug")


@commands(COMMANDS)
@pytest.mark.parametrize(
    ("fault", "named"),
    [("option", "--no-such-option"), ("command", "no-such-command"), ("value", "--device")],
)
def test_wrong_usage_is_one_sentence(command, fault, named, run, tmp_path):
    arguments = {
        "option": command.arguments(["a.png"], tmp_path / command.output, named),
        "command": [named],
        "value": [command.name, "a.png", "-o", str(tmp_path / command.output), named],
    }[fault]
    shown = run(command.program, *arguments)
    assert shown.code == 2
    assert is_one_sentence(shown, command.program)
    assert named in shown.err
    assert list(tmp_path.iterdir()) == []


@commands(COMMANDS)
def test_a_missing_file_is_wrong_input(command, run, tmp_path):
    output = tmp_path / command.output
    shown = run(command.program, *command.arguments([tmp_path / "missing.png"], output))
    assert shown.code == 2
    assert is_one_sentence(shown, command.program)
    assert "missing.png does not exist" in shown.err
    assert list(tmp_path.iterdir()) == []


@commands([c for c in COMMANDS if c.image and c.program != "vitron"])
def test_a_mistyped_suffix_makes_no_folder(command, files, run, tmp_path):
    output = tmp_path / "result.pgn"
    shown = run(command.program, *command.arguments([files.good["-dash.png"]], output))
    assert shown.code == 2
    assert is_one_sentence(shown, command.program)
    assert "result.pgn" in shown.err
    assert ".png" in shown.err
    assert not output.exists()


@commands(COMMANDS)
def test_the_version_is_that_of_the_package(command, run, packages):
    [package] = [package for package in packages if package.name == command.program]
    shown = run(command.program, "--version")
    assert (shown.code, shown.out.strip()) == (0, f"{command.program} {package.project['version']}")


HELP = """
import contextlib, importlib, io, json, sys
from common_kernels.runtime.cli import run_app

def pages(app, words):
    for flag in ("--help", "-h"):
        with contextlib.redirect_stdout(io.StringIO()) as page:
            code = run_app(top, [*words, flag])
        yield [*words, flag], code, page.getvalue()
    for name in app:
        if not name.startswith("-"):
            yield from pages(app[name], [*words, name])

top = importlib.import_module(sys.argv[1]).app
shown = list(pages(top, []))
print(json.dumps({"pages": shown, "modules": sorted(sys.modules)}))
"""
# what may not be loaded to show a page of help, which takes under half a second of one core
NAMES = "accelerate diffusers huggingface_hub open_clip pytorch_lightning scipy skimage torch transformers"
SLOW = set(NAMES.split())
# private words; the glossary of CONTRIBUTING.md names those to use
PRIVATE = re.compile(
    r"(?i:\b(pictures?|talks?|wish(es)?|told|anew|arithmetic|so-manieth|rooms?)\b)|(?<!-)\b[Cc]lips?\b(?!-)"
)


@commands(COMMANDS)
def test_help_has_examples_and_common_words_and_loads_nothing_slow(command, scripts):
    module = scripts[command.program].partition(":")[0]
    done = subprocess.run(
        [sys.executable, "-c", HELP, module],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env=os.environ | {"COLUMNS": "110"},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    shown = {" ".join(words): (code, page) for words, code, page in report["pages"]}
    assert {f"{command.name} --help", "demo --help", "--help"} <= set(shown)
    assert [line for line, (code, _) in shown.items() if code] == []
    assert [line for line, (_, page) in shown.items() if "Examples" not in page] == []
    assert [
        line for line, (_, page) in shown.items() if command.program not in page.split("Examples")[1]
    ] == []
    for line, (_, page) in shown.items():  # an overview says what each of its commands does
        _, listed, commands = page.partition("─ Commands ─")
        names = re.findall(r"^│ ([a-z][\w-]*) *(.*?) *│$", commands, re.MULTILINE)
        assert bool(names) is bool(listed), line
        assert [name for name, text in names if not text] == [], f"{line} leaves commands without a word"
    assert {line: word.group() for line, (_, page) in shown.items() if (word := PRIVATE.search(page))} == {}
    for option in ("--output", "-o", "--json", "--overwrite", "--debug", "--device"):
        assert option in shown[f"{command.name} --help"][1]
    assert "--output" in shown["demo --help"][1]
    assert sorted(SLOW & set(report["modules"])) == []
