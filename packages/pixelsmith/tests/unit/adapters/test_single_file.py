# SPDX-License-Identifier: Apache-2.0
"""A whole model in one file, in the layout in which its family was published."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from common_kernels.runtime.cli import run_app
from diffusers.loaders import single_file_utils
from PIL import Image
from pixelsmith.adapters import load_pipeline
from pixelsmith.cli import app
from pixelsmith.config import LoadingConfig
from pixelsmith.pipelines import pipeline_for
from published import publish
from safetensors.torch import save_file
from tiny_models import tiny_pipeline


@pytest.fixture(scope="module", params=["sd", "sdxl", "sd3", "flux"])
def published(request, tmp_path_factory):
    """A pipeline, and its weights as one file beside its configurations."""
    # two encoders of one width could not be told apart in a file
    pipe = tiny_pipeline(request.param, second_width=24)
    if request.param == "sd3":  # whose file leaves this projection out
        with torch.no_grad():
            pipe.text_encoder.text_projection.weight.copy_(torch.eye(16))
    place = tmp_path_factory.mktemp("published")
    save_file(publish(pipe, request.param), place / "model.safetensors")
    pipe.save_pretrained(place / "config")
    for file in (place / "config").rglob("*.safetensors"):
        file.unlink()  # configurations only
    return pipe, place / "model.safetensors", place / "config"


@pytest.fixture(autouse=True)
def width_of_flux(published, monkeypatch):
    """Let the converter of diffusers split layers of our width: it knows that of FLUX.1 alone, 3072."""

    def split(values, sizes, dim=0):
        if isinstance(sizes, tuple) and sizes[0] == 3072:
            sizes = tuple(size * len(values) // sum(sizes) for size in sizes)
        return torch.split(values, sizes, dim)

    monkeypatch.setattr(single_file_utils, "torch", SimpleNamespace(**{**vars(torch), "split": split}))


def entries(pipe, file, config):
    kind = pipeline_for(type(pipe).__name__)
    return kind, [
        kind.from_single_file(file, config=str(config), local_files_only=True),
        load_pipeline(file, device="cpu", loading=LoadingConfig(config=str(config))),
    ]


def test_a_file_holds_the_model(published):
    pipe, file, config = published
    kind, found = entries(pipe, file, config)
    networks = [name for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)]
    assert len(networks) >= 3
    for loaded in found:
        assert type(loaded) is kind
        for name in networks:
            expected, held = (getattr(each, name).state_dict() for each in (pipe, loaded))
            assert set(held) == set(expected)
            assert all(torch.equal(held[key], expected[key]) for key in expected), name


def test_a_file_runs_from_the_command_line(published, tmp_path, monkeypatch):
    _, file, config = published
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    Image.new("RGB", (48, 48), "red").save("photo.png")
    command = ["upscale", "photo.png", "--num-inference-steps", "1", "--size", "64", "--model", str(file)]
    assert run_app(app, [*command, "--config", str(config), "-o", "a.png"]) == 0
    assert np.asarray(Image.open("a.png")).shape == (64, 64, 3)
