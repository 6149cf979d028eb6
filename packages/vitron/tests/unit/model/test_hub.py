# SPDX-License-Identifier: Apache-2.0
"""What goes to the hub and comes from it; the hub is a folder."""

import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import HfApi
from vitron.model.engine import Vitron

from .backbones import save_backbone

WANTED = {"revision": "v2", "token": "secret", "local_files_only": True, "force_download": True}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub whose repositories are folders, and what it was asked for."""
    place, asked = tmp_path / "hub", []

    def upload(self, *, repo_id, folder_path, revision, commit_message):
        asked.append({"token": self.token, "revision": revision, "commit_message": commit_message})
        shutil.copytree(folder_path, place / repo_id)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def download(repo_id, *, allow_patterns, **named):
        assert "*.bin" not in allow_patterns
        asked.append(named)
        return str(place / repo_id)

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **named: asked.append(named))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return SimpleNamespace(place=place, asked=asked)


@pytest.mark.parametrize("adapters_only", [False, True])
def test_what_was_pushed_loads_by_its_id(hub, tmp_path, adapters_only):
    save_backbone("llava", hub.place / "owner" / "llava")
    cache = {"cache_dir": tmp_path / "cache"}
    model = Vitron.from_pretrained("owner/llava", device="cpu", **WANTED, **cache)
    assert hub.asked == [WANTED | cache]
    assert model.model.config.base_model == "owner/llava"
    if adapters_only:  # transformers would ask the hub for the base model by itself
        model.model.config.base_model = str(hub.place / "owner" / "llava")
    settings = {"token": "secret", "private": True, "revision": "main", "commit_message": "first"}
    figures = {"cIoU on RefCOCO, testA (%)": 71.5}
    found = model.push_to_hub("me/mine", adapters_only=adapters_only, metrics=figures, **settings)
    assert found == "https://hub/me/mine/commit/1"
    assert hub.asked[1:] == [
        {"private": True, "exist_ok": True},
        {"token": "secret", "revision": "main", "commit_message": "first"},
    ]
    pushed = hub.place / "me" / "mine"
    assert (pushed / "model.safetensors").is_file() != adapters_only
    card = (pushed / "README.md").read_text("utf-8")
    for part in (
        "license: apache-2.0",
        "library_name: vitron",
        "pipeline_tag: image-text-to-text",
        *(() if adapters_only else ("base_model: owner/llava",)),
        "arxiv.org/abs/2412.19806",
        "| cIoU on RefCOCO, testA (%) | 71.5 |",
        'Vitron.from_pretrained("me/mine")',
    ):
        assert part in card
    again = Vitron.from_pretrained("me/mine", device="cpu", local_files_only=True)
    weights = again.model.state_dict()
    for name, weight in model.model.state_dict().items():
        assert torch.equal(weights[name], weight), name
