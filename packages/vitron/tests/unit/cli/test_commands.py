# SPDX-License-Identifier: Apache-2.0
"""``vitron parse``, ``specialists``, ``doctor`` and ``demo``."""

import json
from importlib.metadata import EntryPoint

from vitron.demo.painters import ToySegmenter
from vitron.demo.scripted import run_demo
from vitron.specialists import registry

SEGMENT = "Here. <module>B</module><instruction>segment: the red circle</instruction>"
DRAW = "<module>A</module><instruction>draw: a red star</instruction>"


def test_parse_shows_the_turn(run):
    turn = json.loads(run("parse", "Hi. " + DRAW).out)
    assert turn["text"] == "Hi. "
    assert turn["invocations"][0]["module"] == "text_to_image"
    assert json.loads(run("parse", "-", stdin="<module>", code=1).out)["issues"]
    legacy = json.loads(run("parse", "--legacy", SEGMENT).out)
    assert legacy["invocations"][0]["instruction"] == [{"verb": "", "text": "the red circle"}]


def test_specialists_and_doctor(run):
    specs = [json.loads(line) for line in run("specialists", "--json").out.splitlines()]
    names = {spec["name"] for spec in specs}
    assert {"itaclip", "semanir"} <= names
    assert not [name for name in names if name.startswith("toy")]
    shown = run("specialists").out
    assert "semanir" in shown
    assert "VITRON_SAM_MODEL" in shown
    report = json.loads(run("doctor", "--json").out)
    assert report["problems"] == []
    assert len(report["served"]) == 8
    shown = run("doctor").out
    assert "no problems" in shown
    assert "text_to_video: no specialist" in shown


def test_specialists_without_any_are_a_sentence(run, monkeypatch):
    monkeypatch.setattr(registry, "entry_points", lambda group: [])
    assert run("specialists").out.startswith("no specialist can be used yet")
    assert run("specialists", "--json").out == ""


def test_doctor_reports_a_broken_plug_in(run, monkeypatch):
    points = [EntryPoint("lost", "no_such_module_of_ours:Thing", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    (problem,) = json.loads(run("doctor", "--json", code=1).out)["problems"]
    assert problem.startswith("lost (no_such_module_of_ours:Thing) cannot be used")
    assert "cannot be used" in run("specialists").err


def test_the_demo_runs_everything_and_says_that_it_is_scripted(run, tmp_path):
    figures = json.loads(run("demo", "--scripted", "--json").out)
    assert figures["parse_rate"] == 1
    assert "scripted" in figures["replies"]
    assert len(figures["tasks"]) == 13
    assert min(figures["tasks"].values()) > 0.9
    page = (tmp_path / "vitron-demo" / "transcript.html").read_text("utf-8")
    assert "No language model took part" in page
    # the tags of a user's question are shown, not made into elements
    assert "&lt;module&gt;B&lt;/module&gt; mean?" in page
    assert "<module>" not in page
    assert "https://" not in page
    assert len(list((tmp_path / "vitron-demo").glob("*.png"))) == 12
    assert "segmentation by words" in run("demo", "--scripted", "-o", "again").out


def test_the_scores_of_the_demo_can_fall(tmp_path, monkeypatch):
    honest = ToySegmenter.run

    def blind(self, request, **options):
        result = honest(self, request, **options)
        result.artefact.data[..., ::2] = False
        return result

    monkeypatch.setattr(ToySegmenter, "run", blind)
    scores = {task.name: task.score for task in run_demo(tmp_path / "x").tasks}
    assert scores["segmentation by words"] < 0.6
    assert scores["tracking"] < 0.6
    assert scores["editing: remove"] > 0.9
