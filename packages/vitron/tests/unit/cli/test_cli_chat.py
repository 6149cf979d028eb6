# SPDX-License-Identifier: Apache-2.0
"""``vitron chat``, ``vitron serve`` and ``vitron ui`` with a scripted generator in the model's place."""

import json
import socket
import sys

import numpy as np
import pytest
from typer.testing import CliRunner
from vitron.cli import chat, model, serve
from vitron.cli.app import app
from vitron.demo.painters.find import things_in
from vitron.demo.scripted import CIRCLE, SCENE, draw, mask_of
from vitron.protocol.media import read_media
from vitron.protocol.messages import MessageChunk

BOX = {"kind": "box", "x0": 0, "y0": 0, "x1": 1, "y1": 0.5, "frame": 2}


@pytest.fixture
def here(tmp_path, monkeypatch, scene, clip):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a; photo's.png").write_bytes(scene)
    (tmp_path / "clip.gif").write_bytes(clip)
    return tmp_path


@pytest.fixture
def run(here, generator, specialists, monkeypatch):
    monkeypatch.setattr(chat, "load", lambda *_: (generator, specialists))
    monkeypatch.setattr(serve, "load", lambda *_: (generator, specialists))

    def call(*args, stdin="", code=0):
        result = CliRunner().invoke(app, list(args), input=stdin)
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return call


def test_a_talk_shows_words_calls_and_files(run, here):
    result = run("chat", "a; photo's.png", stdin="mark the red circle\neverything\n")
    assert "I mark it." in result.stdout
    assert "> image_segmentation: segment the red circle" in result.stdout
    assert "= mask_1 from img_1 by toy-segmenter: vitron-chat/mask_1.png" in result.stdout
    assert "mark the red circle | everything" in result.stdout
    mask = read_media(here / "vitron-chat" / "mask_1.png").data[..., 0] > 0
    assert np.array_equal(mask, mask_of(CIRCLE))


def test_a_region_is_a_command(run, here):
    lines = [
        "/image 'a; photo's.png'",
        "/region [80, 80, 440, 440]",
        "make the circle green",
        "/media",
        "/save",
    ]
    result = run("chat", "-o", "out", stdin="\n".join(lines))
    assert "box goes with the next message" in result.stdout
    found = read_media(here / "out" / "img_2.png").data
    before = draw(*SCENE)
    changed = (found != before).any(axis=-1)
    box = np.flatnonzero(changed.any(axis=1))[[0, -1]].tolist()
    assert box == [8, 41]
    assert "img_2: image, 1 x 96 x 96" in result.stdout
    talk = json.loads((here / "out" / "talk.json").read_text("utf-8"))
    assert [message["role"] for message in talk["messages"]] == ["user", "assistant"]
    assert list(talk["media"]) == ["img_1", "img_2"]


def test_an_earlier_talk_is_kept(run, here):
    run("chat", stdin="draw a red star")
    before = (here / "vitron-chat" / "img_1.png").read_bytes()
    assert "vitron-chat-2/img_1.png" in run("chat", stdin="draw a red star").stdout
    assert "vitron-chat-3" in run("chat", stdin="/new\ndraw a blue star").stdout
    assert (here / "vitron-chat" / "img_1.png").read_bytes() == before


def test_wrong_lines_are_one_sentence_and_the_talk_goes_on(run):
    lines = [
        "/sing",
        "/image none.png",
        "/clip a; photo's.png/x",
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
    said = result.stderr
    for sentence in (
        "there is no /sing",
        "none.png does not exist",
        "there is none in this talk",
        "secret of the house",
        "there is no module 'Z'",
        "text_to_image: the toy painter draws",
    ):
        assert sentence in said
    assert "/region WHERE" in result.stdout
    # what failed was forgotten
    assert "You said 5: hello" in result.stdout


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
    assert "stopped; the message and its reply are forgotten" in result.stdout
    assert "You said 1: hello" in result.stdout
    assert answer is not None


def test_control_characters_do_not_reach_the_terminal(run):
    result = run("chat", stdin="raw \x1b]0;title\x07 and [red]marks[/red] \x9b2J\n")
    assert "\x1b]" not in result.stdout
    assert "\x9b" not in result.stdout
    assert "and [red]marks[/red]" in result.stdout


def test_lines_in_objects_out(run, here):
    lines = [
        json.dumps({"text": "track the circle", "clips": ["clip.gif"]}),
        "everything",
        json.dumps({"text": "look", "regions": [BOX]}),
        json.dumps({"text": "look", "images": ["none.png"]}),
        '{"text": ',
        json.dumps({"words": "x"}),
        "",
        "draw a red star",
    ]  # fmt: skip
    result = run("chat", "--json", stdin="\n".join(lines))
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(told) == 7
    assert told[0]["text"].strip() == "I follow it."
    assert told[0]["calls"] == [
        {
            "module": "video_segmentation",
            "instruction": [{"verb": "track", "text": "the circle"}],
            "args": {},
        }
    ]
    assert told[0]["results"][0]["files"] == ["vitron-chat/mask_1.gif", "vitron-chat/mask_1-overlay.gif"]
    assert told[1]["text"] == "track the circle | everything"
    assert "1 regions" in told[2]["text"]
    assert told[3] == {"error": "none.png does not exist"}
    assert set(told[4]) == set(told[5]) == {"error"}
    assert "words" in told[5]["error"]
    assert told[6]["results"][0]["output"] == "img_1"
    assert {"tokens", "finish", "issues"} <= set(told[6])
    assert len(things_in(read_media(here / "vitron-chat" / "img_1.png").data)) == 1


def test_missing_extras_are_named(run, monkeypatch):
    monkeypatch.setattr(model, "find_spec", lambda name: None)
    (line,) = run("serve", code=2).stderr.strip().splitlines()
    assert line == "vitron: this needs fastapi, uvicorn, multipart: pip install 'vitron[server]'"
    (line,) = run("ui", code=2).stderr.strip().splitlines()
    assert line == "vitron: this needs gradio: pip install 'vitron[ui]'"


def test_a_model_that_cannot_be_loaded_is_one_sentence(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "vitron.model.engine", None)
    result = CliRunner().invoke(app, ["chat"])
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("vitron: a model needs vitron.model.engine, which is not installed: pip install ")


def test_a_server_is_open_to_others_only_with_a_key(run, monkeypatch):
    monkeypatch.delenv("VITRON_API_KEY", raising=False)
    for command in ("serve", "ui"):
        (line,) = run(command, "--host", "0.0.0.0", code=2).stderr.strip().splitlines()
        assert "0.0.0.0 is open to other machines" in line
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for command in ("serve", "ui"):
            (line,) = run(command, "--port", port, code=2).stderr.strip().splitlines()
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
        "serve", "--port", "0", "--api-key-env", "MY_KEY", "--model", "models/tiny/", "--concurrent", "3"
    )
    assert f"tiny at http://127.0.0.1:{seen['port']}/v1, with a key" in result.stdout
    state = seen["app"].state.vitron
    assert (state.model, state.limits.generations, state.specialists.timeout) == ("tiny", 3, 120)
    (guard,) = seen["app"].user_middleware
    assert guard.kwargs["api_key"] == "secret"
    assert "127.0.0.1" in guard.kwargs["hosts"]
    assert "secret" not in result.output
