# SPDX-License-Identifier: Apache-2.0
"""``vitron chat``, ``vitron serve`` and ``vitron ui`` with a scripted generator in the model's place."""

import json
import socket

import numpy as np
import pytest
from vitron.cli import chat, options, serve, ui
from vitron.demo.painters.find import things_in
from vitron.demo.scripted import CIRCLE, SCENE, draw, mask_of
from vitron.protocol.media import read_media
from vitron.protocol.messages import MessageChunk
from vitron.protocol.sampling import SamplingParams

BOX = {"kind": "box", "x0": 0, "y0": 0, "x1": 1, "y1": 0.5, "frame": 2}


@pytest.fixture(autouse=True)
def _files(tmp_path, scene, video):
    (tmp_path / "a; photo's.png").write_bytes(scene)
    (tmp_path / "video.gif").write_bytes(video)


@pytest.fixture(autouse=True)
def _scripted(generator, specialists, monkeypatch):
    def load(model, machine, options):
        return generator, options.apply(specialists)

    for command in (chat, serve, ui):
        monkeypatch.setattr(command, "load", load)


def test_a_conversation_shows_text_calls_and_files(run, tmp_path):
    result = run("chat", "a; photo's.png", stdin="mark the red circle\neverything\n")
    assert "you mark the red circle\nvitron I mark it." in result.out
    assert "> image_segmentation: segment the red circle" in result.out
    assert "mask_1 from img_1: image_segmentation by toy-segmenter: vitron-chat/mask_1.png" in result.out
    assert "mark the red circle | everything" in result.out
    mask = read_media(tmp_path / "vitron-chat" / "mask_1.png").data[..., 0] > 0
    assert np.array_equal(mask, mask_of(CIRCLE))


def test_a_region_is_a_command(run, tmp_path):
    lines = [
        "/image 'a; photo's.png'",
        "/region [80, 80, 440, 440]",
        "make the circle green",
        "/media",
        "/save",
    ]
    result = run("chat", "-o", "out", stdin="\n".join(lines))
    assert "box goes with the next message" in result.out
    found = read_media(tmp_path / "out" / "img_2.png").data
    before = draw(*SCENE)
    changed = (found != before).any(axis=-1)
    box = np.flatnonzero(changed.any(axis=1))[[0, -1]].tolist()
    assert box == [8, 41]
    assert "img_2: image, 1 x 96 x 96" in result.out
    saved = json.loads((tmp_path / "out" / "conversation.json").read_text("utf-8"))
    assert [message["role"] for message in saved["messages"]] == ["user", "assistant"]
    assert list(saved["media"]) == ["img_1", "img_2"]


def test_an_earlier_conversation_is_kept(run, tmp_path):
    run("chat", stdin="draw a red star")
    before = (tmp_path / "vitron-chat" / "img_1.png").read_bytes()
    assert "vitron-chat-2/img_1.png" in run("chat", stdin="draw a red star").out
    assert "vitron-chat-3" in run("chat", stdin="/new\ndraw a blue star").out
    assert (tmp_path / "vitron-chat" / "img_1.png").read_bytes() == before


def test_wrong_lines_are_one_sentence_and_the_conversation_continues(run):
    lines = [
        "/sing",
        "/image none.png",
        "/video a; photo's.png/x",
        "/region here",
        "/region [1, 2, 3, 4]",
        "look",
        "break",
        "raw <module>Z</module>",
        "draw an aunt",
        "/help",
        "hello",
    ]
    result = run("chat", stdin="\n".join(lines))
    for sentence in (
        "there is no command /sing",
        "none.png does not exist",
        "this conversation has none",
        "secret of the house",
        "there is no module 'Z'",
        "text_to_image: the toy painter draws",
    ):
        assert sentence in result.err
    assert "/region WHERE" in result.out
    # what failed was forgotten
    assert "You said 5: hello" in result.out


def test_ctrl_c_stops_a_reply_and_not_the_program(run, generator, monkeypatch):
    words = iter(["a long story", "hello"])
    answer = generator.answer

    def interrupted(messages, media, regions, sampling):
        yield MessageChunk("Once upon ")
        raise KeyboardInterrupt

    patient = type(generator).stream
    monkeypatch.setattr(
        type(generator),
        "stream",
        lambda self, *args: interrupted(*args) if next(words) != "hello" else patient(self, *args),
    )
    result = run("chat", stdin="a long story\nhello\n")
    assert "stopped; the message and its answer are discarded" in result.out
    assert "You said 1: hello" in result.out
    assert answer is not None


def test_control_characters_do_not_reach_the_terminal(run):
    result = run("chat", stdin="raw \x1b]0;title\x07 and [red]marks[/red] \x9b2J\n")
    assert "\x1b]" not in result.out
    assert "\x9b" not in result.out
    assert "and [red]marks[/red]" in result.out


def test_lines_in_objects_out(run, tmp_path):
    lines = [
        json.dumps({"text": "track the circle", "videos": ["video.gif"]}),
        "everything",
        json.dumps({"text": "look", "regions": [BOX]}),
        json.dumps({"text": "look", "images": ["none.png"]}),
        '{"text": ',
        json.dumps({"words": "x"}),
        "",
        "draw a red star",
    ]  # fmt: skip
    result = run("chat", "--json", stdin="\n".join(lines), code=1)
    answers = [json.loads(line) for line in result.out.splitlines()]
    assert len(answers) == 7
    assert answers[0]["text"].strip() == "I follow it."
    assert answers[0]["calls"] == [
        {
            "module": "video_segmentation",
            "instruction": [{"verb": "track", "text": "the circle"}],
            "args": {},
        }
    ]
    assert answers[0]["results"][0]["outputs"] == {
        "masks": "vitron-chat/mask_1.mp4",
        "overlay": "vitron-chat/mask_1-overlay.mp4",
    }
    assert answers[1]["text"] == "track the circle | everything"
    assert "1 regions" in answers[2]["text"]
    assert answers[3] == {"error": "none.png does not exist"}
    assert set(answers[4]) == set(answers[5]) == {"error"}
    assert "line 2" not in answers[4]["error"]
    assert "words" in answers[5]["error"]
    assert answers[6]["results"][0]["handle"] == "img_1"
    assert {"tokens", "finish", "issues"} <= set(answers[6])
    assert len(things_in(read_media(tmp_path / "vitron-chat" / "img_1.png").data)) == 1


def test_missing_extras_are_named(run, monkeypatch):
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    (line,) = run("serve", code=2).err.strip().splitlines()
    assert line == "vitron: this needs fastapi, uvicorn, multipart: pip install 'vitron[server]'"
    (line,) = run("ui", code=2).err.strip().splitlines()
    assert line == "vitron: this needs gradio: pip install 'vitron[ui]'"


def test_a_model_that_cannot_be_loaded_is_one_sentence(run, monkeypatch, sentence):
    monkeypatch.undo()
    assert "no model 'none'" in sentence(run("chat", "--model", "none", code=2))
    assert "cuda:7" in sentence(run("chat", "--device", "cuda:7", code=2))


def test_sampling_options_reach_the_model(run, generator):
    run("chat", "--max-new-tokens", "7", "--temperature", "0.5", "--no-constrained", stdin="hello\n")
    assert generator.seen[-1][3] == SamplingParams(max_new_tokens=7, temperature=0.5, constrained=False)


def test_a_server_is_open_to_others_only_with_a_key(run, monkeypatch):
    monkeypatch.delenv("VITRON_API_KEY", raising=False)
    for command in ("serve", "ui"):
        (line,) = run(command, "--host", "0.0.0.0", code=2).err.strip().splitlines()
        assert "0.0.0.0 is open to other machines" in line
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for command in ("serve", "ui"):
            (line,) = run(command, "--port", port, code=2).err.strip().splitlines()
            assert f"port {port} of 127.0.0.1 cannot be used" in line


def test_serve_runs_the_app(run, monkeypatch):
    import uvicorn

    seen = {}

    def stand_in(self, sockets=None):
        seen["app"], seen["port"] = self.config.app, sockets[0].getsockname()[1]
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", stand_in)
    monkeypatch.setenv("MY_KEY", "secret")
    result = run(
        "serve", "--port", "0", "--api-key-env", "MY_KEY", "--model", "models/tiny/", "--generations", "3"
    )
    assert f"models/tiny at http://127.0.0.1:{seen['port']}/v1, with a key" in result.out
    state = seen["app"].state.vitron
    assert (state.model, state.limits.generations, state.specialists.timeout) == ("models/tiny", 3, 300)
    (middleware,) = seen["app"].user_middleware
    assert middleware.kwargs["api_key"] == "secret"
    assert "127.0.0.1" in middleware.kwargs["hosts"]
    assert "secret" not in result.out + result.err
