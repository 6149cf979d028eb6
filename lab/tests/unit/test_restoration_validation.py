# SPDX-License-Identifier: Apache-2.0
import subprocess

import numpy as np
import pytest
import torch
from recipes.restoration import validation
from recipes.restoration.networks import build
from recipes.restoration.tasks import TASKS
from recipes.restoration.validation import validation_images
from safetensors.torch import save_file


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "plain"
    folder.mkdir()
    weights = build("conv", TASKS["demosaic"]).state_dict()
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "network.safetensors")
    (folder / "network.txt").write_text("conv")
    return folder


def test_runs_are_compared_on_photographs_and_leaves(recipes, run, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "photographs.npy", images)
    options = ["--photos", tmp_path / "photographs.npy", "--leaves", 1, "--cache", tmp_path / "cache.json"]
    done = recipes("restoration", "validate", "demosaic", run, *options)
    assert done.exit_code == 0, done.stderr
    assert all(word in done.stderr for word in ("photograph", "leaves", "plain", "Malvar"))
    assert (tmp_path / "cache.json").exists()


def test_leaves_for_validation_are_in_no_pool():
    images = validation_images(None, 2)
    assert list(images) == ["leaves 0", "leaves 1"]
    assert images["leaves 0"]().shape == (validation.SIDE, validation.SIDE, 3)
    assert validation.FIRST_LEAVES > 100_000


def test_without_debians_tools_there_is_one_sentence(recipes, tmp_path, monkeypatch):
    monkeypatch.setattr(validation.shutil, "which", lambda tool: None)
    done = recipes("restoration", "photographs", "-o", tmp_path / "out.npy")
    assert done.exit_code == 2
    assert "need Debian's apt-get and dpkg-deb; validate on leaves alone" in done.stderr.replace("\n", " ")


def test_a_package_of_another_digest_is_refused(recipes, tmp_path, monkeypatch):
    def download(command, *, cwd, **options):
        (cwd / "other.deb").write_bytes(b"another")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(validation.shutil, "which", lambda tool: tool)
    monkeypatch.setattr(validation.subprocess, "run", download)
    done = recipes("restoration", "photographs", "-o", tmp_path / "out.npy")
    assert done.exit_code == 2
    assert "is not the file whose digest the recipe knows" in done.stderr.replace("\n", " ")
    assert not (tmp_path / "out.npy").exists()
