# SPDX-License-Identifier: Apache-2.0
"""The community pipeline, loaded as users of diffusers load one: by its file."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
from diffusers.utils import dynamic_modules_utils
from PIL import Image
from pixelsmith.pipelines import pipeline_for
from tiny_models import tiny_pipeline

FILE = Path(__file__).parents[3] / "community" / "pipeline_pixelsmith.py"
QUICK = {"num_inference_steps": 2, "seed": 3, "output_type": "np"}


@pytest.fixture
def load(tmp_path, monkeypatch):
    # diffusers copies the file to its cache, and imports it from there
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")

    def call(pipe):
        pipe.save_pretrained(tmp_path / "model")
        found = diffusers.DiffusionPipeline.from_pretrained(
            tmp_path / "model", custom_pipeline=str(FILE), trust_remote_code=True
        )
        found.set_progress_bar_config(disable=True)
        return found

    return call


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_it_makes_the_images_of_our_class(load, family):
    host = tiny_pipeline(family)
    found = load(host)
    assert type(found).__name__ == "PixelsmithPipeline"
    ours = pipeline_for(type(host).__name__).from_pipe(host)
    ours.set_progress_bar_config(disable=True)
    assert type(found.as_family()) is type(ours)
    image = Image.new("RGB", (32, 32), "red")
    images = [pipe("a red ball", image, scale=1.5, **QUICK).images[0] for pipe in (found, ours)]
    assert images[0].shape == (48, 48, 3)
    # products are rounded by where in memory a matrix lies, so a pixel may fall to the next level
    assert np.abs(images[0] - images[1]).max() <= 1.5 / 255


def test_it_replaces_a_scheduler_without_closed_form(load, caplog):
    host = tiny_pipeline("sd")
    host.scheduler = diffusers.PNDMScheduler.from_config(host.scheduler.config, skip_prk_steps=True)
    assert type(load(host).scheduler) is diffusers.DDIMScheduler
    assert "PNDMScheduler of this model" in caplog.text


def test_it_is_saved_as_any_pipeline(load, tmp_path):
    found = load(tiny_pipeline("sdxl"))
    found.save_pretrained(tmp_path / "again")
    again = diffusers.StableDiffusionXLPipeline.from_pretrained(tmp_path / "again")
    assert again.unet.config.cross_attention_dim == 32
