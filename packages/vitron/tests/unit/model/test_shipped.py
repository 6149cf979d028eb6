# SPDX-License-Identifier: Apache-2.0
"""The model in the package holds the talks of the demo: calls of the right modules, all readable."""

import json
from importlib import resources
from pathlib import Path

import httpx
import huggingface_hub
import pytest
from huggingface_hub.errors import RepositoryNotFoundError
from typer.testing import CliRunner
from vitron.cli import app
from vitron.shipped import list_models, model_folder


def test_the_model_is_there_and_small():
    assert list_models() == ["vitron-tiny"]
    folder = Path(str(resources.files("vitron") / "assets" / "vitron-tiny"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 16_000_000
    assert {path.name for path in folder.iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_the_demo_talks_with_it(tmp_path):
    done = CliRunner().invoke(app, ["demo", "--json", "-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["parse_rate"] == 1
    assert figures["replies"] == "by vitron-tiny"
    scores = figures["tasks"]
    # what to call and with which words is what it knows best
    called = [
        scores[name]
        for name in ("image to video 0", "video editing 0", "restoration 0", "chains 0", "editing 0")
    ]
    assert sum(called) >= 4
    page = (tmp_path / "transcript.html").read_text("utf-8")
    assert "<module>" not in page
    assert "http" not in page
    assert len(list(tmp_path.glob("*.png"))) >= 4


def test_a_bare_name_that_nobody_knows_asks_no_hub(tmp_path):
    with pytest.raises(ValueError, match=r"no model called 'nosuch'.*vitron-tiny"):
        model_folder("nosuch")
    assert model_folder(tmp_path) == str(tmp_path)


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch):
    asked = list[str]()

    def ask(url, timeout):
        asked.append(url)
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", ask)
    with pytest.raises(ValueError, match="owner/nosuch is no folder here, and the hub does not answer"):
        model_folder("owner/nosuch")
    assert len(asked) == 1
    assert asked[0].endswith("owner/nosuch/resolve/main/config.json")


@pytest.mark.parametrize("name", ["owner/cached", "owner/refused", "a/b/c"])
def test_what_the_hub_answers_is_left_to_the_loading(monkeypatch, name):
    def ask(url, timeout):
        raise RepositoryNotFoundError("404", response=httpx.Response(404, request=httpx.Request("HEAD", url)))

    def cached(repo, file):
        return "there" if repo == "owner/cached" else None

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", ask)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    assert model_folder(name) == name
