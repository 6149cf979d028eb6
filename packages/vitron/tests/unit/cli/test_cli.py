# SPDX-License-Identifier: Apache-2.0
import json
from importlib.metadata import entry_points

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from vitron.cli.app import app
from vitron.demo.scripted import CIRCLE, SCENE, draw, mask_of, run_demo
from vitron.protocol.media import read_media

SEGMENT = "Here. <module>B</module><instruction>segment: the red circle</instruction>"
DRAW = "<module>A</module><instruction>draw: a red star</instruction>"


@pytest.fixture(autouse=True)
def _toys_alone(monkeypatch):
    """What else is installed must not matter here."""
    monkeypatch.setattr(
        "vitron.specialists.registry.entry_points",
        lambda group: [point for point in entry_points(group=group) if point.name.startswith("toy-")],
    )


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(draw(*SCENE)).save("a; photo's.png")
    return tmp_path


@pytest.fixture
def run(here):
    def call(*args, code=0, stdin=None):
        result = CliRunner().invoke(app, list(args), input=stdin)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        assert list(here.rglob("*.part")) == []
        return result

    return call


def sentence(result):
    """The one line on stderr, with nothing on stdout."""
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("vitron: ")
    return line


def test_a_reply_becomes_files(run, here):
    result = run("run", "a; photo's.png", "--reply", SEGMENT)
    assert "Here." in result.stdout
    assert "mask_1 from img_1: image_segmentation by toy-segmenter: " in result.stdout
    assert sorted(path.name for path in (here / "vitron-out").iterdir()) == [
        "mask_1-overlay.png",
        "mask_1.png",
    ]
    assert np.array_equal(read_media(here / "vitron-out" / "mask_1.png").data[..., 0] > 0, mask_of(CIRCLE))


def test_one_object_per_result(run, here):
    result = run("run", "--reply", "-", "-o", "x", "--json", stdin=DRAW + SEGMENT.replace("circle", "star"))
    first, second = map(json.loads, result.stdout.splitlines())
    assert first["output"] == "img_1"
    assert second["labels"] == ["red star"]
    assert all((here / file).is_file() for file in first["files"] + second["files"])


def test_a_dry_run_writes_nothing(run, here):
    result = run("run", "--reply", DRAW + SEGMENT, "--dry-run", "--json")
    steps = [json.loads(line) for line in result.stdout.splitlines()]
    assert [step["after"] for step in steps] == [[], [0]]
    assert steps[1]["specialists"] == ["toy-segmenter"]
    assert not (here / "vitron-out").exists()
    assert "mask_1 from img_1" in run("run", "--reply", DRAW + SEGMENT, "--dry-run").stdout


def test_some_calls_may_fail(run, here):
    result = run("run", "--reply", DRAW + SEGMENT, code=1)
    assert "finds nothing like 'the red circle'" in result.stderr
    assert (here / "vitron-out" / "img_1.png").is_file()


def test_files_that_are_there_are_kept(run, here):
    run("run", "--reply", DRAW)
    before = (here / "vitron-out" / "img_1.png").read_bytes()
    assert "is there already" in sentence(run("run", "--reply", DRAW, "--seed", "5", code=2))
    assert (here / "vitron-out" / "img_1.png").read_bytes() == before
    run("run", "--reply", DRAW, "--seed", "5", "--overwrite")
    assert (here / "vitron-out" / "img_1.png").read_bytes() != before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "none.png", "--reply", SEGMENT], "none.png does not exist"),
        (["run", "--reply", "Just text."], "holds no call"),
        (["run", "--reply", DRAW, "-o", "a; photo's.png"], "cannot be written"),
    ],
)
def test_wrong_use_is_one_sentence(run, args, message):
    assert message in sentence(run(*args, code=2))


def test_issues_are_said_and_unknown_options_refused(run):
    assert "there is no module 'Z'" in run("run", "--reply", f"<module>Z</module>{DRAW}").stderr
    run("run", "--colour", code=2)


def test_a_budget_that_is_too_small(run, monkeypatch):
    from vitron.demo.painters import ToyPainter

    spec = ToyPainter().spec.model_copy(update={"memory_bytes": 3_000_000})
    monkeypatch.setattr(ToyPainter, "spec", spec)
    result = run("run", "--reply", DRAW, "--memory", "2", code=1)
    assert "toy-painter needs 3000000 bytes" in result.stderr


def test_parse_shows_the_turn(run):
    turn = json.loads(run("parse", "Hi. " + DRAW).stdout)
    assert turn["text"] == "Hi. "
    assert turn["invocations"][0]["module"] == "text_to_image"
    assert json.loads(run("parse", "-", stdin="<module>", code=1).stdout)["issues"]
    legacy = json.loads(run("parse", "--legacy", SEGMENT).stdout)
    assert legacy["invocations"][0]["instruction"] == [{"verb": "", "text": "the red circle"}]


def test_specialists_and_doctor(run):
    specs = [json.loads(line) for line in run("specialists", "--json").stdout.splitlines()]
    assert {"toy-animator", "toy-painter", "toy-segmenter"} <= {spec["name"] for spec in specs}
    assert "toy-painter" in run("specialists").stdout
    report = json.loads(run("doctor", "--json").stdout)
    assert report["problems"] == []
    assert len(report["served"]) == 8
    assert "nothing wrong" in run("doctor").stdout


def test_doctor_reports_a_broken_plug_in(run, monkeypatch):
    from importlib.metadata import EntryPoint

    from vitron.specialists import registry

    points = [EntryPoint("lost", "no_such_module_of_ours:Thing", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    problems = json.loads(run("doctor", "--json", code=1).stdout)["problems"]
    assert problems[0].startswith("lost (no_such_module_of_ours:Thing) cannot be used")
    assert "nobody serves restoration" in problems
    assert "cannot be used" in run("specialists").stderr


def test_help_and_version(run):
    assert "vitron demo" in run("--help").stdout
    assert run("--version").stdout.startswith("vitron ")


def test_the_demo_runs_everything_and_says_that_it_is_scripted(run, here):
    result = run("demo", "--scripted", "--json")
    figures = json.loads(result.stdout)
    assert figures["parse_rate"] == 1
    assert "scripted" in figures["replies"]
    assert len(figures["tasks"]) == 13
    assert min(figures["tasks"].values()) > 0.9
    page = (here / "vitron-demo" / "transcript.html").read_text("utf-8")
    assert "No language model took part" in page
    # the tags of a user's question are shown, not made into elements
    assert "&lt;module&gt;B&lt;/module&gt; mean?" in page
    assert "<module>" not in page
    assert "http" not in page
    assert len(list((here / "vitron-demo").glob("*.png"))) == 12


def test_the_scores_of_the_demo_can_fall(here, monkeypatch):
    from vitron.demo.painters import ToySegmenter

    honest = ToySegmenter.run

    def blind(self, request, **options):
        result = honest(self, request, **options)
        result.artefact.data[..., ::2] = False
        return result

    monkeypatch.setattr(ToySegmenter, "run", blind)
    scores = {task.name: task.score for task in run_demo(here / "x").tasks}
    assert scores["segmentation by words"] < 0.6
    assert scores["tracking"] < 0.6
    assert scores["editing: remove"] > 0.9
