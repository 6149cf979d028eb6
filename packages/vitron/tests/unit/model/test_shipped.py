# SPDX-License-Identifier: Apache-2.0
"""The shipped model answers the conversations of the demo: calls of the right modules, all parsed."""

import json
from importlib import resources
from pathlib import Path

import pytest
from common_kernels.runtime.cli import run_app
from common_kernels.runtime.hub import ModelNotFoundError
from vitron.cli import app
from vitron.model.engine import Vitron
from vitron.shipped import SHIPPED


def test_the_model_is_there_and_small():
    assert SHIPPED.names() == ["vitron-tiny"]
    folder = Path(str(resources.files("vitron") / "assets" / "vitron-tiny"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 16_000_000
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_the_demo_generates_with_it(tmp_path, capsys):
    assert run_app(app, ["demo", "--json", "-o", str(tmp_path)]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["parse_rate"] == 1
    scores = figures["tasks"]
    # which module to call, with which instruction, is what it knows best
    called = [
        scores[name]
        for name in ("image to video 0", "video editing 0", "restoration 0", "chains 0", "editing 0")
    ]
    assert sum(called) >= 4
    page = (tmp_path / "transcript.html").read_text("utf-8")
    assert "<module>" not in page
    assert "://" not in page
    assert len(list(tmp_path.glob("*.png"))) >= 4


def test_unknown_models_are_refused_with_the_names_of_the_shipped_ones():
    with pytest.raises(ModelNotFoundError, match=r"no model 'nosuch'.*vitron-tiny"):
        Vitron.from_pretrained("nosuch")
