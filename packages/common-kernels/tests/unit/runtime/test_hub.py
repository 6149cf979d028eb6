# SPDX-License-Identifier: Apache-2.0
import json

import huggingface_hub
import pytest
import torch
from common_kernels.runtime import hub
from common_kernels.runtime.hub import ModelNotFoundError, ShippedModels, find_model
from huggingface_hub.errors import HFValidationError
from safetensors.torch import save_file


@pytest.fixture
def shipped(tmp_path):
    folder = tmp_path / "assets" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "card.json").write_text('{"task": "denoise"}')
    (tmp_path / "assets" / "empty").mkdir()
    return ShippedModels(tmp_path / "assets")


@pytest.fixture
def offline(monkeypatch):
    calls = []

    def refuse(url, **options):
        calls.append((url, options))
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    return calls


def test_shipped_names_come_first(shipped):
    assert shipped.names() == ["tiny"]
    assert shipped.card("tiny") == {"task": "denoise"}
    assert find_model("tiny", shipped=shipped) == shipped.assets / "tiny"
    with pytest.raises(ModelNotFoundError, match="no shipped model 'x': there are tiny"):
        shipped.folder("x")


def test_a_folder_must_hold_a_model(shipped, tmp_path):
    assert find_model(shipped.assets / "tiny") == shipped.assets / "tiny"
    with pytest.raises(ModelNotFoundError, match=r"has no model_index\.json"):
        find_model(shipped.assets / "tiny", index_file="model_index.json")
    with pytest.raises(ModelNotFoundError, match="is a file; give the folder"):
        find_model(shipped.assets / "tiny" / "config.json")


@pytest.mark.parametrize("name", ["nothing", "a/b/c", "./a", "/a/b", "~/a", "a/"])
def test_what_cannot_be_a_hub_id_is_not_asked_for(shipped, offline, name):
    with pytest.raises(ModelNotFoundError, match=r"neither shipped \(tiny\) nor a folder nor a hub id"):
        find_model(name, shipped=shipped)
    assert offline == []


def test_a_silent_hub_is_asked_once(shipped, offline):
    with pytest.raises(ModelNotFoundError, match="owner/name is not a folder here, and the hub does not"):
        find_model("owner/name", shipped=shipped, download=["*.json"])
    assert len(offline) == 1
    assert offline[0][1]["timeout"] <= 10


def test_what_the_hub_answers_is_left_to_the_download(monkeypatch):
    def answer(url, **options):
        raise HFValidationError("no such name")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", answer)
    assert find_model("owner/name") == "owner/name"


def test_hub_options_are_passed_on(monkeypatch, tmp_path):
    seen = {}

    def fetch(repo_id, **options):
        seen.update(options, repo_id=repo_id)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, **options: None)
    found = find_model("owner/name", download=("*.json",), revision="v1", token="t", cache_dir=tmp_path)
    assert found == tmp_path
    assert seen["allow_patterns"] == ["*.json"]
    assert (seen["revision"], seen["token"], seen["cache_dir"]) == ("v1", "t", tmp_path)


def test_configurations_are_read_or_named(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"has no config\.json"):
        hub.read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelNotFoundError, match="cannot be read"):
        hub.read_config(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelNotFoundError, match="must hold a JSON object, got list"):
        hub.read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"a": 1}))
    assert hub.read_config(tmp_path) == {"a": 1}


def test_pickles_are_refused_with_the_reason(tmp_path):
    torch.save({}, tmp_path / "model.bin")
    with pytest.raises(ModelNotFoundError, match=r"model\.bin is a pickle, which can run code"):
        hub.load_weights(tmp_path)


def test_weights_are_read_or_damaged(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    assert hub.load_weights(tmp_path)["a"].tolist() == [1, 1]
    (tmp_path / "model.safetensors").write_bytes(b"12")
    with pytest.raises(ModelNotFoundError, match="is damaged or cut short"):
        hub.load_weights(tmp_path)


def test_devices(monkeypatch):
    assert hub.resolve_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    assert hub.resolve_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="device 'mps' is not present: 0 mps devices found"):
        hub.resolve_device("mps")
    with pytest.raises(ValueError, match="device 'cuda:7' is not present: 0 cuda devices found"):
        hub.resolve_device("cuda:7")
    with pytest.raises(ValueError, match="device must be 'auto', 'cpu' or 'cuda"):
        hub.resolve_device("toaster")


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_the_accelerator_of_this_machine_is_taken(monkeypatch, kind):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device(kind))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert hub.resolve_device("auto") == torch.device(kind)
    assert hub.resolve_device(f"{kind}:1") == torch.device(kind, 1)
    with pytest.raises(ValueError, match=f"device '{kind}:2' is not present: 2 {kind} devices found"):
        hub.resolve_device(f"{kind}:2")
    other = "xpu" if kind == "cuda" else "cuda"
    with pytest.raises(ValueError, match=f"device '{other}' is not present: 0 {other} devices found"):
        hub.resolve_device(other)


def test_dtypes():
    assert hub.resolve_dtype("auto", "cpu", cuda_default="float16") is torch.float32
    assert hub.resolve_dtype("auto", "cuda", cuda_default="float16") is torch.float16
    assert hub.resolve_dtype("auto", "xpu", cuda_default="float16") is torch.float16
    assert hub.resolve_dtype("auto", "mps", cuda_default="float16") is torch.float32
    assert hub.resolve_dtype("bfloat16") is torch.bfloat16
    assert hub.resolve_dtype(torch.float64) is torch.float64
    with pytest.raises(ValueError, match="dtype must be one of auto, float32"):
        hub.resolve_dtype("int8")


def test_libraries_are_quiet_for_a_while():
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.enable_progress_bar()
    with hub.quiet_libraries("transformers"):
        assert not logging.is_progress_bar_enabled()
        assert logging.get_verbosity() == logging.ERROR
    assert logging.is_progress_bar_enabled()
    assert logging.get_verbosity() == before
