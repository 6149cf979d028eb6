# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from pixelsmith.io.seams import seam_score
from pixelsmith.store.rows import ArrayRows


def grain(height, width, seed=0):
    return np.random.default_rng(seed).integers(90, 120, (height, width, 3), dtype=np.uint8)


def with_tiles(image, period, step):
    """Every tile of a grid gets a tone of its own."""
    rows, columns = np.arange(image.shape[0]) // period, np.arange(image.shape[1]) // period
    return (image + step * ((rows[:, None] + columns) % 2)[..., None]).astype(np.uint8)


@pytest.mark.parametrize("size", [(256, 256), (1300, 96), (90, 1300)])
def test_grain_without_tiles_scores_one(size):
    assert seam_score(ArrayRows(grain(*size)), 32) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("size", [(256, 256), (1300, 96)])
def test_tiles_that_show_score_more_the_more_they_do(size):
    scores = [seam_score(ArrayRows(with_tiles(grain(*size), 32, step)), 32) for step in (0, 10, 30)]
    assert scores[0] < 1.05 < scores[1] < scores[2]
    # the lines must be those of the tiles
    assert seam_score(ArrayRows(with_tiles(grain(*size), 32, 30)), 36) < 1.4


def test_slopes_are_no_seams():
    ramp = np.add.outer(np.arange(128), np.arange(128))[..., None].repeat(3, 2).astype(np.uint8) // 2
    assert seam_score(ArrayRows(ramp), 32) == pytest.approx(1, abs=0.05)


def test_bands_agree_with_the_whole(monkeypatch):
    image = ArrayRows(with_tiles(grain(300, 80), 20, 12))
    whole = seam_score(image, 20)
    for height in (7, 64, 100):
        monkeypatch.setattr("pixelsmith.io.seams._BAND", height)
        assert seam_score(image, 20) == pytest.approx(whole, rel=1e-9)


def test_flat_images_and_wrong_periods():
    flat = np.full((64, 64, 3), 7, dtype=np.uint8)
    assert seam_score(ArrayRows(flat), 16) == 1
    for period in (3, 63):
        with pytest.raises(ValueError, match=f"must be at least 4 and leave a line .*, got {period}"):
            seam_score(ArrayRows(flat), period)
