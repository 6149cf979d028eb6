# SPDX-License-Identifier: Apache-2.0
"""Users of a model that never saw a photograph are told so, once, and of no other model."""

import json

import pytest
from vitron.cli import serve, ui
from vitron.model.engine import Vitron
from vitron.specialists import SpecialistRegistry


@pytest.fixture(scope="module")
def shipped():
    return Vitron.from_pretrained("vitron-tiny", device="cpu")


def test_the_shipped_model_says_what_it_was_trained_on(shipped):
    assert shipped.notice is not None
    assert shipped.notice.startswith("this model was trained on drawn scenes of coloured shapes alone")
    named = [word.strip("(),") for word in shipped.notice.split() if "VITRON_" in word]
    # what it names can be set up
    absent = " ".join(SpecialistRegistry().discover().absent.values())
    assert len(named) == 3
    assert all(name in absent for name in named)


def test_a_copy_says_so_too_and_other_models_do_not(shipped, vitron, tmp_path):
    assert vitron.notice is None
    shipped.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["training_domain"]
    assert Vitron.from_pretrained(tmp_path, device="cpu").notice == shipped.notice


def test_the_terminal_says_it_once(run):
    said = "trained on drawn scenes of coloured shapes alone"
    for options in ((), ("--json",)):
        shown = run("chat", "--max-new-tokens", 2, *options, stdin="hello\nhello\n")
        assert shown.err.count(said) == 1
        assert said not in shown.out


def test_the_page_and_the_server_say_it(run, generator, specialists, monkeypatch):
    """With a scripted generator in the model's place; what the page shows is a test of the browser."""
    seen = {}
    generator.notice = "trained on nothing"
    for command in (serve, ui):
        monkeypatch.setattr(command, "load", lambda *_: (generator, specialists))
    monkeypatch.setattr("vitron.ui.launch", lambda *_, **options: seen.update(options))
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)
    run("ui", "--port", 0)
    assert seen["notice"] == generator.notice
    assert run("serve", "--port", 0).err.count(generator.notice) == 1
