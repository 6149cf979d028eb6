# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from recipes.gates import missed
from recipes.probes.judging import Judge
from recipes.tiny_sdxl import assembly
from recipes.tiny_sdxl.assembly import assemble, generate_images, save, sheet
from recipes.tiny_sdxl.autoencoder import build_autoencoder
from recipes.tiny_sdxl.commands import HOMES
from recipes.tiny_sdxl.denoiser import Denoiser, DenoiserOptions
from recipes.tiny_sdxl.judging import REQUIREMENTS, both_colours, draw_orders, single_figures
from shapeworld.vocabulary import COLOURS, HELD_OUT, SHAPES

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SMALL = DenoiserOptions(widths=(16, 32), depths=(1, 2), batch_size=4, window_steps=0, half=False)


@pytest.fixture(scope="module")
def pipeline():
    torch.manual_seed(0)
    denoiser = Denoiser(SMALL, 4)
    return assemble(build_autoencoder((8, 16, 16), 4), denoiser)


def test_a_saved_pipeline_generates_the_same_images(pipeline, tmp_path):
    size = save(pipeline, tmp_path)
    assert size == sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    loaded = StableDiffusionXLPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.unet.dtype == loaded.text_encoder_2.dtype == loaded.vae.dtype == torch.float32
    assert (tmp_path / "tokenizer_2" / "merges.txt").exists()
    assert json.loads((tmp_path / "model_index.json").read_text())["force_zeros_for_empty_prompt"] is True
    prompts = ["a red circle", "a blue star on waves"]
    ours = generate_images(pipeline.to(dtype=torch.float32), prompts, seed=5, steps=2)
    assert ours.shape == (2, 64, 64, 3)
    assert np.array_equal(ours, generate_images(loaded, prompts, seed=5, steps=2))
    assert not np.array_equal(ours, generate_images(loaded, prompts, seed=6, steps=2))


def test_the_pipeline_is_of_the_real_architecture(pipeline):
    config = pipeline.unet.config
    assert config.addition_embed_type == "text_time"
    assert max(config.transformer_layers_per_block) > 1
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.vae_scale_factor == 4


def test_too_large_a_folder_is_refused(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(assembly, "SIZE_LIMIT", 1000)
    with pytest.raises(ValueError, match="must hold at most 1000 bytes"):
        save(pipeline, tmp_path)


def test_sheet_lays_pictures_out_in_rows():
    images = np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    result = sheet(images, 2, gap=1)
    assert result.shape == (7, 7, 3)
    assert result[1, 1, 0] == 0
    assert result[1, 4, 0] == 1
    assert result[4, 1, 0] == 2
    assert result[4, 4, 0] == 255


# judging


class Answers:
    """Returns what it was given."""

    def __init__(self, labels=None, colours=None):
        self.labels, self.seen = labels, colours

    def classify(self, images):
        return self.labels

    def colours(self, images):
        return self.seen

    def count(self, images):
        return np.ones(len(images), np.int64)


def test_prompts_name_what_is_judged():
    single, pairs = draw_orders(1, 20, 1), draw_orders(1, 20, 2)
    assert all(order.scene.things[0].shape in order.prompt.split() for order in single)
    assert all(len({thing.colour for thing in order.scene.things}) == 2 for order in pairs)
    assert all(
        {(t.colour, t.shape) for t in o.scene.things} & HELD_OUT for o in draw_orders(1, 9, 1, split="novel")
    )


def test_single_figures_count_right_answers():
    orders = draw_orders(1, 4, 1)
    things = [order.scene.things[0] for order in orders]
    shapes = np.array([SHAPES.index(thing.shape) for thing in things])
    colours = np.array([COLOURS.index(thing.colour) for thing in things])
    shapes[0] = (shapes[0] + 1) % len(SHAPES)
    labels = {"shape": shapes, "colour": colours, "material": np.zeros(4, np.int64)}
    figures = single_figures(np.zeros((4, 8, 8, 3), np.uint8), orders, Answers(labels))
    assert (figures["shape_percent"], figures["colour_percent"]) == (75.0, 100.0)
    assert figures["colour_and_shape_percent"] == 75.0


def test_both_colours_wants_both():
    orders = draw_orders(1, 2, 2)
    wanted = [{thing.colour for thing in order.scene.things} for order in orders]
    seen = [wanted[0] | {"black"}, set(list(wanted[1])[:1])]
    assert both_colours(np.zeros((2, 8, 8, 3)), orders, Answers(colours=seen)) == 50.0


def test_missed_requirements_are_named():
    figures = {
        "vae_psnr_db": 29.0,
        "colour_percent": 99.0,
        "shape_percent": 80.0,
        "both_colours_percent": 90.0,
    }
    assert missed(REQUIREMENTS, [figures] * 3) == []
    (line,) = missed(REQUIREMENTS, [figures | {"vae_psnr_db": 28.4}] * 3)
    assert line.startswith("vae_psnr_db at least 28.5: 28.4,")
    assert len(missed(REQUIREMENTS, [figures | {"shape_percent": float("nan")}] * 3)) == 1


def test_every_home_holds_the_same_model() -> None:
    first, *copies = (
        {file.relative_to(home): file.read_bytes() for file in home.rglob("*") if file.is_file()}
        for home in HOMES
    )
    assert first
    assert all(copy == first for copy in copies)


def test_the_shipped_model_generates_the_colour_of_the_prompt() -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(HOMES[0])
    pipeline.set_progress_bar_config(disable=True)
    orders = draw_orders(11, 8, 1)
    prompts = [order.prompt for order in orders]
    images = generate_images(pipeline, prompts, seed=11, steps=10)
    figures = single_figures(images, orders, Judge.load())
    assert figures["colour_percent"] >= 85
    np.testing.assert_array_equal(images, generate_images(pipeline, prompts, seed=11, steps=10))
