# SPDX-License-Identifier: Apache-2.0
"""What is known of models, and the command that lists it."""

import json

import pytest
from common_kernels.runtime.cli import run_app
from common_kernels.runtime.hub import ShippedModels
from semanir import SemanIR, SemanIRConfig, shipped_models
from semanir.cards import ModelCard, summarise
from semanir.cli import app
from semanir.evaluation.protocol import Task
from semanir.weights import SHIPPED

CARD = {
    "task": "removes noise",
    "tasks": ["denoise"],
    "license": "Apache-2.0",
    "parameters": 1234,
    "figures": [
        {
            "images": "5 photographs",
            "setting": "sigma 25",
            "value": 31.5,
            "input": 20.5,
            "baseline": 32.0,
            "baseline_name": "BM3D",
        },
        {"images": "5 photographs", "setting": "sigma 25", "value": 0.91, "metric": "ssim"},
        {"images": "5 photographs", "setting": "clean", "value": 44.75, "input": 100.0},
    ],
    "recipe": "kept aside",
}


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    config = SemanIRConfig.preset(
        "sr-small", embed_dims=(8,), num_heads=(1,), depths=(1,), window_size=4, k=3, upscale=2
    )
    for name in ("mine", "other"):
        SemanIR(config).save_pretrained(tmp_path / name)
    (tmp_path / "mine" / "card.json").write_text(json.dumps(CARD))
    monkeypatch.setattr("semanir.weights.SHIPPED", ShippedModels(tmp_path))
    return tmp_path


def test_the_command_lists_what_is_known(shipped, capfd):
    assert run_app(app, ["models"]) == 0
    shown = capfd.readouterr().out
    for text in (
        "mine",
        "other",
        "removes noise",
        "1,234",
        "colour, x2",
        "Apache-2.0",
        "BM3D",
        "-0.50",
        "0.91",
    ):
        assert text in shown
    # equal images have no PSNR to lose decibels from
    assert "unchanged" in shown
    assert "-55.25" not in shown
    assert run_app(app, ["models", "--json"]) == 0
    mine, other = (json.loads(line) for line in capfd.readouterr().out.splitlines())
    assert (mine["model"], mine["upscale"], mine["k"]) == ("mine", 2, 3)
    assert mine["card"]["figures"][0]["baseline"] == 32.0
    assert mine["num_bytes"] == (shipped / "mine" / "model.safetensors").stat().st_size
    assert other["card"]["task"] == ""


def test_a_figure_that_is_none_is_refused():
    with pytest.raises(ValueError, match="a figure of the card is not one"):
        ModelCard.from_dict({"figures": [{"psnr": 3}]})


@pytest.mark.parametrize("name", shipped_models())
def test_shipped_models_have_whole_cards(name):
    found = summarise(name, SHIPPED.folder(name))
    assert found.num_bytes < 2.5e6
    card = found.card
    assert card.task
    assert card.license == "Apache-2.0"
    assert card.statement
    assert set(card.tasks) <= set(Task.__args__)
    assert card.figures
    assert all(figure.images and figure.setting for figure in card.figures)
