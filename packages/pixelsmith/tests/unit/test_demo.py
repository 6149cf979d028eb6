# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
from common_kernels.runtime.cli import run_app
from PIL import Image
from pixelsmith import adapters
from pixelsmith.adapters import shipped_models
from pixelsmith.cli import app
from pixelsmith.demo import PROMPTS, run_demo
from pixelsmith.io.seams import seam_profile
from pixelsmith.store.rows import ArrayRows

FILES = ["comparison.png", "image.dzi", "image.html", "image.png", "image_files"]


@pytest.fixture
def load(dummies):
    """Loads models that take no time; keeps them."""

    def loaded(prompt):
        loaded.models.append(dummies.Dummy(prompt=prompt))
        return loaded.models[-1]

    loaded.models = []
    return loaded


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_figures_are_those_of_the_images(dummies, load, tmp_path):
    reported = []
    figures = run_demo(
        load, tmp_path, prompts=("a", "b"), seed=3, on_progress=lambda *progress: reported.append(progress)
    )
    assert names(tmp_path) == FILES
    assert [model.options["prompt"] for model in load.models] == ["a", "b"]
    # the image to enlarge, and the one that is sampled at once
    assert load.models[0].bases == [((32, 32), 3), ((128, 128), 3)]
    assert figures.denoiser_calls == sum(n for model in load.models for _, n in model.calls)
    assert (figures.base_size, figures.size) == (32, 128)
    assert {prompt for prompt, _, _ in reported} == {"a", "b"}
    with Image.open(tmp_path / "image.png") as image:
        ours = np.asarray(image)
    with Image.open(tmp_path / "comparison.png") as image:
        sheet = np.asarray(image)
    # below title and prompt, with a gap of 14 between the images
    shown = [sheet[64 : 64 + 256, 14 + column * 270 :][:, :256] for column in range(4)]
    np.testing.assert_array_equal(shown[3][::2, ::2], ours)
    np.testing.assert_array_equal(shown[2][::2, ::2], dummies.scene((128, 128), 3))
    np.testing.assert_array_equal(shown[0][::8, ::8], dummies.scene((32, 32), 3))
    enlarged = Image.fromarray(dummies.scene((32, 32), 3)).resize((128, 128), Image.Resampling.LANCZOS)
    assert np.abs(shown[1][::2, ::2].astype(int) - np.asarray(enlarged)).max() <= 1
    # both prompts have the same image here
    worst = seam_profile([ArrayRows(ours)], 2).worst()[0]
    assert figures.seam_score == pytest.approx(worst.ratio, rel=0.2)
    assert figures.seconds > 0 < figures.seconds_direct
    with pytest.raises(ValueError, match="prompts must not be empty"):
        run_demo(load, tmp_path, prompts=())


def test_the_command_reports_and_writes(load, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = []

    def load_model(name, prompt, **options):
        asked.append((name, options["num_inference_steps"], options["guidance_scale"]))
        return load(prompt)

    monkeypatch.setattr(adapters, "load_model", load_model)
    assert run_app(app, ["demo"]) == 0
    shown = capsys.readouterr().out
    assert "worst line" in shown
    assert "comparison.png" in shown
    assert names(tmp_path / "pixelsmith-demo") == FILES
    assert asked == [("tiny-sdxl", 20, 4.0)] * len(PROMPTS)
    assert run_app(app, ["demo", "--json", "-o", "x"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert {"size", "denoiser_calls", "seconds", "seam_score", "model"} <= figures.keys()
    assert (figures["size"], figures["model"]) == (128, "dummy")


@pytest.mark.skipif("tiny-sdxl" not in shipped_models(), reason="tiny-sdxl is not inside this package")
def test_the_shipped_model_adds_detail_without_seams(tmp_path):
    figures = run_demo(
        lambda prompt: adapters.load_model("tiny-sdxl", prompt, num_inference_steps=10, guidance_scale=4.0),
        tmp_path, prompts=PROMPTS[:1],
    )  # fmt: skip
    assert figures.size == 256
    assert figures.seam_score < 4  # 6.7 while patches ended at one place in every step
    assert figures.detail > 1


def test_a_file_in_the_place_of_the_folder_is_named(load, tmp_path):
    (tmp_path / "demo").write_text("mine")
    with pytest.raises(FileExistsError, match="demo is a file, but a folder is needed"):
        run_demo(load, tmp_path / "demo", prompts=("a",))
