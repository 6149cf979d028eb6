# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
from recipes.restoration import baselines
from recipes.restoration.baselines import (
    EQUAL_DB,
    baseline_figures,
    deviation,
    non_local_means,
    score,
    total_variation,
)
from recipes.restoration.conditions import Condition
from recipes.restoration.photographs import COLOUR, GREY, noisy, psnr, ssim, to_8bit
from semanir.degradations import JPEG

SIZES = {
    "astronaut": (512, 512, 3),
    "coffee": (400, 600, 3),
    "chelsea": (300, 451, 3),
    "rocket": (427, 640, 3),
    "motorcycle": (500, 741, 3),
    "camera": (512, 512),
    "brick": (512, 512),
    "grass": (512, 512),
    "gravel": (512, 512),
    "moon": (512, 512),
    "coins": (303, 384),
}


def smooth_photo():
    y, x = np.mgrid[:32, :40]
    return np.stack([5 * y, 4 * x, 80 + y + x], axis=-1).astype(np.uint8)


def test_the_photographs_are_these_eleven():
    assert {name: load().shape for name, load in {**COLOUR, **GREY}.items()} == SIZES


def test_noise_is_reproducible_unclipped_and_of_the_stated_strength():
    photo = np.zeros((300, 300), np.uint8)
    image = noisy(photo, 25)
    assert np.array_equal(image, noisy(photo, 25))
    assert not np.array_equal(image, noisy(photo, 25, seed=1))
    assert image.std() * 255 == pytest.approx(25, rel=0.01)
    assert image.min() < -0.1
    assert np.array_equal(noisy(photo + 7, 0), np.full((300, 300), 7 / 255))


def test_psnr_by_hand():
    photo = np.full((4, 4), 100, np.uint8)
    assert psnr(np.full((4, 4), 110 / 255), photo) == pytest.approx(20 * np.log10(25.5))
    assert psnr(np.full((4, 4), 100.4 / 255), photo) == float("inf")  # a file holds no fractions
    assert list(to_8bit(np.array([-1, 0.5, 2]))) == [0, 128, 255]


def test_a_score_fits_into_json():
    photo = smooth_photo()
    assert score(photo / 255, photo) == {"psnr": EQUAL_DB, "ssim": 1.0}


def test_ssim_is_one_for_the_photograph_and_falls_with_noise():
    photo = smooth_photo()
    levels = [ssim(noisy(photo, sigma), photo) for sigma in (0, 10, 40)]
    assert levels[0] == 1
    assert levels[0] > levels[1] > levels[2]


def test_non_local_means_gives_the_reference_figure():
    photo = COLOUR["chelsea"]()
    assert psnr(non_local_means(noisy(photo, 25), 25), photo) == pytest.approx(29.78, abs=0.01)


def test_non_local_means_gives_the_reference_figure_in_grey():
    photo = GREY["coins"]()
    assert psnr(non_local_means(noisy(photo, 25), 25), photo) == pytest.approx(27.91, abs=0.01)


@pytest.mark.parametrize(
    ("photos", "sigma", "method", "reference"),
    [
        (COLOUR, 15, total_variation, 30.64),
        (COLOUR, 50, total_variation, 25.57),
        (GREY, 15, total_variation, 30.58),
        (GREY, 50, total_variation, 25.37),
        (COLOUR, 15, non_local_means, 32.25),
        (GREY, 50, non_local_means, 24.83),
    ],
)
def test_means_over_the_photographs_are_the_reference_ones(photos, sigma, method, reference):
    levels = [psnr(method(noisy(load(), sigma), sigma), load()) for load in photos.values()]
    assert np.mean(levels) == pytest.approx(reference, abs=0.01)


def test_figures_are_measured_once_per_condition_and_setting(tmp_path, monkeypatch):
    cache, photos = tmp_path / "cards" / "baselines.json", {"smooth": smooth_photo}
    white, other = Condition(name="white 25", sigma=25), Condition(name="white 50", sigma=50)
    first = baseline_figures(photos, (white,), cache)
    photo = smooth_photo()
    assert first["smooth"]["white 25"]["tv"] == score(total_variation(noisy(photo, 25), 25), photo)
    assert json.loads(cache.read_text())["settings"] == baselines.settings()

    with monkeypatch.context() as patch:
        patch.setitem(baselines.METHODS, "nlm", None)  # a second measurement would call it
        assert baseline_figures(photos, (white,), cache) == first
    more = baseline_figures(photos, (white, other), cache)
    assert more["smooth"]["white 25"] == first["smooth"]["white 25"]
    assert set(more["smooth"]) == {"white 25", "white 50"}
    changed = baseline_figures(photos, (Condition(name="white 25", sigma=30),), cache)
    assert changed["smooth"]["white 25"]["tv"] != first["smooth"]["white 25"]["tv"]

    monkeypatch.setitem(baselines.TV_WEIGHT, "colour", 0.2)
    assert baseline_figures(photos, (white,), cache) != first
    assert len(json.loads(cache.read_text())["conditions"]) == 1


def test_a_method_is_told_how_far_the_input_is_from_the_truth():
    photo = np.full((8, 8), 100, np.uint8)
    condition = Condition(name="JPEG 50", steps=(JPEG(quality=50),))
    assert deviation(np.full((8, 8), 104 / 255), photo, condition) == pytest.approx(4)
    assert deviation(photo / 255, photo, Condition(name="white 25", sigma=25)) == 25
