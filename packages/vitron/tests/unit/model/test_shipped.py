# SPDX-License-Identifier: Apache-2.0
"""The model in the package holds the talks of the demo: calls of the right modules, all readable."""

import json
from importlib import resources
from pathlib import Path

import pytest
from typer.testing import CliRunner
from vitron.cli import app
from vitron.engine import Vitron
from vitron.shipped import list_models, model_folder


def test_the_model_is_there_and_small():
    assert list_models() == ["vitron-tiny"]
    folder = Path(str(resources.files("vitron") / "assets" / "vitron-tiny"))
    assert sum(path.stat().st_size for path in folder.iterdir()) < 16_000_000
    assert not [path.name for path in folder.iterdir() if path.suffix not in (".json", ".safetensors")]
    assert Vitron.from_pretrained("vitron-tiny", device="cpu").processor.config.template == "compact"


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
    assert model_folder("owner/nosuch") == "owner/nosuch"
    assert model_folder(tmp_path) == str(tmp_path)
