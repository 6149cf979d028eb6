# SPDX-License-Identifier: Apache-2.0
"""The community pipeline, loaded as users of diffusers load one: by its file."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
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


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_it_is_saved_as_any_pipeline(load, tmp_path, family):
    """By the generic class, by ours, and by the file again."""
    host = tiny_pipeline(family)
    kind, place = type(host), tmp_path / "again"
    load(host).save_pretrained(place)
    ours = pipeline_for(kind.__name__)
    generic = diffusers.DiffusionPipeline.from_pretrained(place)
    found = diffusers.DiffusionPipeline.from_pretrained(
        place, custom_pipeline=str(FILE), trust_remote_code=True
    )
    assert type(generic) is kind
    assert type(found).__name__ == "PixelsmithPipeline"
    for again in (generic, ours.from_pretrained(place), found):
        expected = network_of(host).state_dict()
        assert all(torch.equal(each, expected[name]) for name, each in network_of(again).state_dict().items())


def network_of(pipe):
    return pipe.transformer if getattr(pipe, "transformer", None) is not None else pipe.unet


def test_loras_are_loaded_by_our_pipeline_over_the_same_networks(load, tmp_path):
    peft = pytest.importorskip("peft")
    found, image = load(tiny_pipeline("sdxl")), Image.new("RGB", (32, 32), "red")
    plain = found("a red ball", image, scale=1.5, **QUICK).images
    trained = tiny_pipeline("sdxl")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trained.unet.add_adapter(
            peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
        )
    layers = peft.get_peft_model_state_dict(trained.unet)
    diffusers.StableDiffusionXLPipeline.save_lora_weights(tmp_path / "lora", unet_lora_layers=layers)
    found.as_family().load_lora_weights(tmp_path / "lora", adapter_name="style")
    assert not np.array_equal(found("a red ball", image, scale=1.5, **QUICK).images, plain)
    found.as_family().set_adapters("style", 0.0)
    assert np.array_equal(found("a red ball", image, scale=1.5, **QUICK).images, plain)
