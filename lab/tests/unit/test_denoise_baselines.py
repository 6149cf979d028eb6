# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
from recipes.tiny_denoise import baselines
from recipes.tiny_denoise.baselines import EQUAL_DB, baseline_figures, non_local_means, score, total_variation
from recipes.tiny_denoise.photographs import COLOUR, GREY, noisy, psnr, ssim, to_8bit

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


def test_figures_are_measured_once_per_setting(tmp_path, monkeypatch):
    cache, photos = tmp_path / "cards" / "baselines.json", {"smooth": smooth_photo}
    first = baseline_figures(photos, (25,), cache)
    photo = smooth_photo()
    assert first["smooth"]["25"]["tv"] == score(total_variation(noisy(photo, 25), 25), photo)
    assert json.loads(cache.read_text())["settings"] == baselines.settings()

    with monkeypatch.context() as patch:
        patch.setattr(baselines, "non_local_means", None)  # a second measurement would call it
        assert baseline_figures(photos, (25,), cache) == first
    more = baseline_figures(photos, (25, 50), cache)
    assert more["smooth"]["25"] == first["smooth"]["25"]
    assert set(more["smooth"]) == {"25", "50"}

    monkeypatch.setitem(baselines.TV_WEIGHT, "colour", 0.2)
    assert baseline_figures(photos, (25,), cache)["smooth"]["25"]["tv"] != first["smooth"]["25"]["tv"]
    assert json.loads(cache.read_text())["photos"]["smooth"].keys() == {"25"}
