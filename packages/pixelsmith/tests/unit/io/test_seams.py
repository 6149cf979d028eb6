# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image
from pixelsmith.io.seams import Line, seam_profile
from pixelsmith.store.rows import ArrayRows
from sklearn.datasets import load_sample_images

NAMES = (
    "astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "motorcycle_left.png",
    "hubble_deep_field.jpg", "retina.jpg", "camera.png", "coins.png", "moon.png",
)  # fmt: skip


@pytest.fixture(scope="module")
def photos():
    folder = Path(skimage.data.__file__).parent
    found = [np.asarray(Image.open(folder / name).convert("RGB"))[:640, :640] for name in NAMES]
    return found + [image[:640, :640] for image in load_sample_images().images]


def enlarged(photo, scale):
    small = Image.fromarray(photo[: photo.shape[0] // 8 * 8, : photo.shape[1] // 8 * 8])
    small = small.resize((small.width // scale, small.height // scale), Image.Resampling.LANCZOS)
    size = small.width * scale, small.height * scale
    return np.asarray(small.resize(size, Image.Resampling.LANCZOS))


def test_photos_score_one_under_any_shift_of_the_grid(photos):
    profiles = [seam_profile([ArrayRows(photo)], 8) for photo in photos]
    for period in (8, 64):
        scores = [np.median([one.score(period, shift) for one in profiles]) for shift in range(period)]
        assert np.abs(np.array(scores) - 1).max() <= 0.05


@pytest.mark.parametrize("scale", [2, 4])
def test_lanczos_scores_one_under_any_shift_of_the_grid(photos, scale):
    profiles = [seam_profile([ArrayRows(enlarged(photo, scale))], 8) for photo in photos]
    for period in (8, 64):
        scores = [np.median([one.score(period, shift) for one in profiles]) for shift in range(period)]
        assert np.abs(np.array(scores) - 1).max() <= 0.05


@pytest.mark.parametrize(("axis", "at"), [("column", 64), ("column", 252), ("row", 128), ("row", 4)])
def test_a_step_of_three_levels_is_found_where_it_is(photos, axis, at):
    crops = [enlarged(photo, 4)[:256, :256].astype(np.int16) for photo in photos]
    crops = [crop for crop in crops if crop.shape == (256, 256, 3)]
    index = (slice(None), slice(at, None)) if axis == "column" else (slice(at, None),)
    for crop in crops:
        crop[index] += 3
    rows = [ArrayRows(np.clip(crop, 0, 255).astype(np.uint8)) for crop in crops]
    first, second = seam_profile(rows, 4).worst(2)
    assert (first.axis, first.position) == (axis, at)
    assert first.ratio > 1.5 > second.ratio


def test_bands_agree_with_the_whole(photos, monkeypatch):
    image = ArrayRows(photos[0][:300, :80])
    whole = seam_profile([image], 4)
    for height in (7, 64, 100):
        monkeypatch.setattr("pixelsmith.io.seams._BAND", height)
        banded = seam_profile([image], 4)
        assert np.allclose(banded.rows, whole.rows, equal_nan=True)
        assert np.allclose(banded.columns, whole.columns, equal_nan=True)


def test_slopes_and_flat_images_have_no_seam():
    ramp = np.add.outer(np.arange(128), np.arange(128))[..., None].repeat(3, 2).astype(np.uint8) // 2
    for image in (ramp, np.full((64, 64, 3), 7, dtype=np.uint8)):
        profile = seam_profile([ArrayRows(image)], 8)
        assert profile.score() == pytest.approx(1, abs=0.05)
        assert profile.worst()[0].ratio == pytest.approx(1, abs=0.05)


def test_the_largest_ratio_comes_first():
    image = np.full((64, 64, 3), 90, dtype=np.uint8)
    image[:, 24:] += 20
    image[40:] += 40
    assert seam_profile([ArrayRows(image)], 8).worst(2) == [
        Line("row", 40, pytest.approx(161)), Line("column", 24, pytest.approx(81)),
    ]  # fmt: skip


def test_what_cannot_be_measured_is_refused():
    flat = np.full((64, 64, 3), 7, dtype=np.uint8)
    for spacing in (1, 32):
        with pytest.raises(ValueError, match=f"spacing must be at least 2 .*, got {spacing}"):
            seam_profile([ArrayRows(flat)], spacing)
    with pytest.raises(ValueError, match="images must be of one size"):
        seam_profile([ArrayRows(flat), ArrayRows(flat[:32])], 4)
    with pytest.raises(ValueError, match="period must leave a line in the image, got 100"):
        seam_profile([ArrayRows(flat)], 8).score(100)
