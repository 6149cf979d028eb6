# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from PIL import Image
from vitron.data.files import write_samples
from vitron.data.schema import MaskTarget, Sample, SampleMedia, Targets
from vitron.demo.painters import toy_registry
from vitron.demo.scripted import CIRCLE, SCENE, draw, mask_of
from vitron.protocol.contract import Instruction, Invocation
from vitron.protocol.messages import MediaPart, Message, TextPart, text_message
from vitron.protocol.regions import mask_to_box, mask_to_region
from vitron.specialists.registry import SpecialistRegistry

CALL = Invocation(
    module="image_segmentation", instruction=(Instruction(verb="segment", text="the red circle"),)
)
SEGMENT = "<module>B</module><instruction>segment: the red circle</instruction>"


@pytest.fixture
def data(tmp_path):
    """Three samples of one image, and messages for two of them."""
    folder = tmp_path / "data"
    folder.mkdir()
    Image.fromarray(draw(*SCENE)).save(folder / "0.png")
    mask = mask_of(CIRCLE)
    target = Targets(masks=(MaskTarget(masks=(mask_to_region(mask),)),), boxes=(mask_to_box(mask),))
    question = Message(role="user", content=(MediaPart(media=0), TextPart(text="Segment it.")))
    samples = [
        Sample(
            id=f"seg-{number}",
            task="referring_segmentation",
            messages=(question, text_message("assistant", "", CALL)),
            media=(SampleMedia(path="0.png"),),
            targets=target,
        )
        for number in range(3)
    ]
    write_samples(samples, folder)
    lines = [json.dumps({"id": f"seg-{number}", "reply": SEGMENT}) for number in range(2)]
    (tmp_path / "replies.jsonl").write_text("\n".join(lines), "utf-8")
    return folder


@pytest.fixture
def evaluate(run, data, monkeypatch):
    monkeypatch.setattr(SpecialistRegistry, "discover", lambda self: toy_registry())

    def call(*more, code=0):
        options = ("--replies", "replies.jsonl", "--device", "cpu", *more)
        return run("evaluate", "referring_segmentation", data, *options, code=code)

    return call


def test_scores_beside_the_published_ones(evaluate):
    found = json.loads(evaluate("--json", code=1).out)
    assert found["scores"]["ciou"] == 1
    rate = found["figures"]["module_accuracy"]
    assert (rate["value"], rate["high"], rate["samples"]) == (1, 1, 2)
    assert rate["low"] == pytest.approx(0.3424, abs=1e-4)
    assert found["parts"] == {}
    assert list(found["failures"]) == ["seg-2"]
    assert found["published"][0]["benchmark"] == "RefCOCO val"
    again = evaluate(code=1)
    assert "0.3424 to 1.0000" in again.out
    assert "2 samples, 2 of them from an earlier run, 1 failed" in again.out
    assert "seg-2" in again.err
    assert "NExT-Chat" in again.out


def test_rows_count_for_their_own_settings_alone(evaluate):
    def resumed(*more):
        return json.loads(evaluate("--json", "--limit", "2", *more).out)["resumed"]

    assert resumed() == 0
    assert resumed("--seed", "3") == 0
    assert resumed("--seed", "3") == 2
    assert resumed() == 2
    assert resumed("--overwrite") == 0


def test_rows_of_other_data_or_specialists_do_not_count(evaluate, data, monkeypatch):
    def resumed():
        return json.loads(evaluate("--json", "--limit", "2").out)["resumed"]

    assert (resumed(), resumed()) == (0, 2)
    text = (data / "data.jsonl").read_text("utf-8")
    (data / "data.jsonl").write_text(text.replace("Segment it.", "Segment the circle."), "utf-8")
    assert (resumed(), resumed()) == (0, 2)
    monkeypatch.setattr(SpecialistRegistry, "discover", lambda self: self)
    assert resumed() == 0
    monkeypatch.setattr(SpecialistRegistry, "discover", lambda self: toy_registry())
    assert resumed() == 2


def test_wrong_usage_is_one_sentence(run, sentence):
    assert "task must be one of" in sentence(run("evaluate", "x", ".", code=2))
    assert "give its public layout" in sentence(run("evaluate", "vqa", ".", code=2))
    assert "cuda:7" in sentence(run("evaluate", "vqa", ".", "--device", "cuda:7", code=2))
