# SPDX-License-Identifier: Apache-2.0
"""The terminal with folders of other vision language models, as they are published."""

import json

import pytest

from ..model.backbones import save_backbone  # noqa: TID252  # models that several folders use

BOX = {"kind": "box", "x0": 0, "y0": 0, "x1": 1, "y1": 0.5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {family: save_backbone(family, root / family) for family in ("llava", "qwen2_5_vl")}


@pytest.fixture(autouse=True)
def _files(tmp_path, scene, mp4):
    (tmp_path / "scene.png").write_bytes(scene)
    (tmp_path / "moves.mp4").write_bytes(mp4)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_a_conversation_with_a_folder_of_another_model(run, folders, family, caplog):
    """Four turns with an image, a video and a region; new heads are announced."""
    lines = [
        json.dumps({"text": "hello", "images": ["scene.png"]}),
        json.dumps({"text": "segment this", "regions": [BOX]}),
        json.dumps({"text": "and now?", "videos": ["moves.mp4"]}),
        "remove it",
    ]
    shown = run("chat", "--model", folders[family], "--max-new-tokens", 4, "--json", stdin="\n".join(lines))
    answers = [json.loads(line) for line in shown.out.splitlines()]
    assert len(answers) == 4
    for answer in answers:
        assert "error" not in answer
        assert 0 < answer["tokens"] <= 8  # a malformed first attempt counts
    assert "untrained until you run `vitron fit`" in caplog.text


def test_a_message_of_5403_tokens_is_refused_by_a_model_of_2048_positions(run, folders):
    from vitron.model.engine import Vitron
    from vitron.protocol.messages import text_message

    folder = folders["qwen2_5_vl"]
    vitron = Vitron.from_pretrained(folder, device="cpu")
    assert vitron.context_length == 2048
    start = vitron.count_tokens([text_message("user", "")], [])
    text = "9" * (5403 - start)
    assert vitron.count_tokens([text_message("user", text)], []) == 5403
    lines = f"{text}\nhello\n"
    shown = run("chat", "--model", folder, "--max-new-tokens", 2, "--json", stdin=lines, code=1)
    refused, answered = (json.loads(line) for line in shown.out.splitlines())
    assert refused == {"error": "the message has 5403 tokens, and the context of the model 2048: shorten it"}
    # it does not stand in the way of the next
    assert answered["tokens"] > 0


def test_a_message_that_is_cut_off_says_so(run, folders):
    shown = run("chat", "--model", folders["llava"], "--max-new-tokens", 3, stdin="hello\n")
    assert "the message was cut off after 3 tokens: --max-new-tokens" in shown.err
