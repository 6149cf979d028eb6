# SPDX-License-Identifier: Apache-2.0
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi
from semanir import Restorer, SemanIR, SemanIRConfig
from semanir.weights import SHIPPED, ModelNotFoundError, find_folder, shipped_models


@pytest.fixture
def folder(tmp_path):
    config = SemanIRConfig.preset(
        "tiny", embed_dims=(8, 8), num_heads=(1, 1), depths=(1, 1, 1, 1), window_size=2, conv_blocks=()
    )
    SemanIR(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_shipped_names_load():
    for name in shipped_models():
        model = SemanIR.from_pretrained(name, device="cpu")
        side = 8 * model.config.upscale
        assert model(torch.rand(1, 3, 8, 8)).shape == (1, 3, side, side)


@pytest.mark.parametrize("name", ["nothing", "../secret", "a/b/c"])
def test_unknown_name(name):
    with pytest.raises(ModelNotFoundError, match="no model"):
        find_folder(name)


def test_a_pickle_is_refused_with_the_cure(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelNotFoundError, match=r"pytorch_model.bin is a pickle.*convert it to safetensors"):
        SemanIR.from_pretrained(folder)


def test_a_file_that_holds_no_weights_is_refused(folder):
    with pytest.raises(ModelNotFoundError, match="is a file"):
        SemanIR.from_pretrained(folder / "config.json")


def test_damaged_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelNotFoundError, match="is damaged"):
        SemanIR.from_pretrained(folder)


def test_damaged_configuration(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelNotFoundError, match=r"config\.json cannot be read"):
        SemanIR.from_pretrained(folder)


def test_unknown_configuration_key(folder):
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**stored, "colour": 1}))
    with pytest.raises(ModelNotFoundError, match="no field colour"):
        SemanIR.from_pretrained(folder)


def test_weights_of_another_configuration(folder):
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**stored, "embed_dims": [16, 16]}))
    with pytest.raises(ValueError, match="do not fit"):
        SemanIR.from_pretrained(folder)


@pytest.mark.parametrize("load", [SemanIR.from_pretrained, Restorer.from_pretrained])
def test_the_hub_is_asked_for_what_was_named(folder, monkeypatch, load, tmp_path):
    asked = []

    def find(name, **options):
        asked.append({"name": name} | options)
        return folder

    monkeypatch.setattr("semanir.weights.find_model", find)
    wanted = {
        "revision": "v2",
        "token": "secret",
        "cache_dir": tmp_path / "cache",
        "local_files_only": True,
        "force_download": True,
    }
    load("someone/model", device="cpu", **wanted)
    assert wanted.items() <= asked[0].items()
    assert asked[0]["name"] == "someone/model"
    assert asked[0]["download"] == ["config.json", "model.safetensors"]


def test_what_is_pushed_to_the_hub_loads_again(folder, monkeypatch, tmp_path):
    pushed = tmp_path / "hub"

    def upload(self, *, folder_path, **named):
        assert (named["repo_id"], named["commit_message"]) == ("someone/net", "first")
        shutil.copytree(folder_path, pushed)

    monkeypatch.setattr("semanir.model.find_repository", lambda library: f"https://example.org/{library}")
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **named: SimpleNamespace(repo_id=repo_id))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    model = SemanIR.from_pretrained(folder, device="cpu")
    figures = {"repo_id": "someone/net", "metrics": "PSNR 31.5 dB"}
    model.push_to_hub("someone/net", commit_message="first", model_card_kwargs=figures)
    assert {"config.json", "model.safetensors", "README.md"} == {file.name for file in pushed.iterdir()}
    loaded = SemanIR.from_pretrained(pushed, device="cpu")
    assert loaded.config == model.config
    stored = loaded.state_dict()
    assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())
    card = (pushed / "README.md").read_text("utf-8")
    for part in (
        "license: apache-2.0",
        "library_name: semanir",
        "[repository](https://example.org/semanir), licence Apache-2.0.",
        "2405.20008",
        "PSNR 31.5 dB",
        '"someone/net"',
    ):
        assert part in card


def test_shipped_models_have_cards():
    for name in shipped_models():
        card = SHIPPED.card(name)
        assert card["task"]
        assert card["parameters"] == sum(p.numel() for p in SemanIR.from_pretrained(name).parameters())
