# SPDX-License-Identifier: Apache-2.0
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from common_kernels.runtime.cli import run_app
from diffeat.cli import app
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from PIL import Image


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty place with two photos, and a third in a folder below."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 30, 3), dtype=np.uint8)
        path = tmp_path / "photos" / ("inner" if number == 2 else "") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path


@pytest.fixture
def run(capsys):
    """Drive the command as a user does."""

    def drive(*args, code=0):
        capsys.readouterr()
        found = run_app(app, [str(arg) for arg in args])
        shown = capsys.readouterr()
        assert found == code, shown
        return SimpleNamespace(stdout=shown.out, stderr=shown.err)

    return drive


@pytest.fixture
def rows(run):
    """Drive the command with ``--json``: the objects on stdout."""

    def drive(*args, code=0):
        return [json.loads(line) for line in run(*args, "--json", code=code).stdout.splitlines()]

    return drive


@pytest.fixture
def complain(run):
    """Drive the command into an error: the one line on stderr, with nothing on stdout."""

    def drive(*args):
        result = run(*args, code=2)
        assert result.stdout == ""
        (line,) = result.stderr.strip().splitlines()
        assert line.startswith("diffeat: ")
        return line

    return drive


@pytest.fixture(scope="session")
def small_sdxl_folder(tmp_path_factory, sdxl_folder):
    """A random pipeline with the levels, repeats and blocks of the one inside this package."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(sdxl_folder)
    config = json.loads((sdxl_folder / "unet" / "config.json").read_text())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small = {**config, "layers_per_block": 1, "transformer_layers_per_block": [1, 2, 1]}
        pipeline.register_modules(unet=UNet2DConditionModel.from_config(small))
    folder = tmp_path_factory.mktemp("small-sdxl")
    pipeline.save_pretrained(folder)
    return folder
