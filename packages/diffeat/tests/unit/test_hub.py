# SPDX-License-Identifier: Apache-2.0
"""What goes to the hub and comes from it; the hub is a folder."""

import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from diffeat import FeatureExtractor
from diffeat.heads import AggregationHead, HeadConfig, load_head, push_head
from diffusers import DiffusionPipeline
from huggingface_hub import HfApi

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
        asked.append(named)
        return str(place / repo_id)

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **named: asked.append(named))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return SimpleNamespace(place=place, asked=asked)


def test_a_head_that_was_pushed_loads_by_its_id(hub, tmp_path):
    config = HeadConfig(kind="aggregation", channels={"mid-repeat0-res-out": 8}, dim=4, model="owner/sd15")
    head = AggregationHead(config)
    settings = {"token": "secret", "private": True, "revision": "main", "commit_message": "first"}
    found = push_head(head, "someone/head", metrics={"PCK@0.1 on SPair-71k, test (%)": 61.2}, **settings)
    assert found == "https://hub/someone/head/commit/1"
    assert hub.asked == [
        {"private": True, "exist_ok": True},
        {"token": "secret", "revision": "main", "commit_message": "first"},
    ]
    card = (hub.place / "someone" / "head" / "README.md").read_text("utf-8")
    for part in (
        "license: apache-2.0",
        "library_name: diffeat",
        "base_model: owner/sd15",
        "arxiv.org/abs/2410.03558",
        "| PCK@0.1 on SPair-71k, test (%) | 61.2 |",
        'load_head("someone/head", "aggregation")',
    ):
        assert part in card
    cache = {"cache_dir": tmp_path / "cache"}
    again = load_head("someone/head", "aggregation", **WANTED, **cache)
    assert hub.asked[-1] == WANTED | cache
    assert again.config == config
    assert torch.equal(again.mixing, head.mixing)


def test_the_hub_is_asked_for_the_pipeline_that_was_named(monkeypatch, sd15_folder, tmp_path):
    """The options reach every call of diffusers; the files are those of a folder."""
    asked, wanted = [], WANTED | {"cache_dir": tmp_path / "cache"}
    loads = {name: getattr(DiffusionPipeline, name).__func__ for name in ("load_config", "from_pretrained")}

    def spy(name):
        def load(cls, place, **named):
            if place == "owner/sd15":
                asked.append((name, {key: named.pop(key, None) for key in wanted}))
                place = str(sd15_folder)
            return loads[name](cls, place, **named)

        return classmethod(load)

    for name in loads:
        monkeypatch.setattr(DiffusionPipeline, name, spy(name))
    extractor = FeatureExtractor.from_pretrained("owner/sd15", device="cpu", **wanted)
    assert (extractor.name, extractor.revision) == ("owner/sd15", "v2")
    assert asked == [("load_config", wanted), ("from_pretrained", wanted)]
