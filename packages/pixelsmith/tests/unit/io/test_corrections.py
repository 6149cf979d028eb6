# SPDX-License-Identifier: Apache-2.0
from itertools import pairwise

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageFilter
from pixelsmith.io.corrections import REACH, correct_rows
from pixelsmith.store.rows import ArrayRows


def whole(decoded, image, *, colours=True, **options):
    parts = list(correct_rows([(0, decoded)], ArrayRows(image), colours=colours, **options))
    return np.concatenate([rows for _, rows in parts])


def saturation(image):
    """The 90th percentile, in [0, 255]."""
    hsv = np.asarray(Image.fromarray(image).convert("HSV"))
    return np.percentile(hsv[..., 1], 90)


@pytest.fixture(scope="module")
def photo():
    return skimage.data.astronaut()[:240, :320]


def test_colours_come_from_the_image_and_detail_stays(photo):
    grey = photo.mean(axis=2, keepdims=True)
    pale = (grey + 0.8 * (photo - grey)).round().astype(np.uint8)  # as autoencoders do
    kept = whole(pale, photo)
    assert saturation(photo) - saturation(pale) > 15
    assert abs(saturation(photo) - saturation(kept)) <= 4
    rng = np.random.default_rng(0)
    grain = rng.choice([-12, 12], (*photo.shape[:2], 1))
    sharp = np.clip(photo + grain, 0, 255).astype(np.uint8)
    inside = (photo > 20) & (photo < 235)
    found = whole(sharp, photo).astype(int) - photo
    # the mean of the grain in a blur is what it loses
    assert np.corrcoef(found[inside], np.broadcast_to(grain, photo.shape)[inside])[0, 1] > 0.99


def test_an_image_with_its_own_colours_stays(photo):
    assert np.abs(whole(photo, photo).astype(int) - photo).max() == 0


def test_a_flat_shift_is_undone_to_the_level(photo):
    moved = np.clip(photo.astype(int), 30, 225)
    assert np.abs(whole((moved + 20).astype(np.uint8), moved.astype(np.uint8)) - moved).max() <= 1


def test_nothing_coarse_is_left_of_the_decoded_image(photo):
    """What a blur of twice the coarsest level shows is of the image alone."""
    blurred = [
        np.asarray(Image.fromarray(each).filter(ImageFilter.GaussianBlur(26)), dtype=int)
        for each in (whole(photo[:, ::-1].copy() // 2 + 60, photo // 2 + 60), photo // 2 + 60)
    ]
    mirrored = np.asarray(Image.fromarray(photo[:, ::-1] // 2 + 60).filter(ImageFilter.GaussianBlur(26)), int)
    assert np.abs(blurred[0] - blurred[1]).mean() < 0.25 * np.abs(mirrored - blurred[1]).mean()


@pytest.mark.parametrize("bands", [(240,), (7, 90, 11, 132), (128, 112)])
@pytest.mark.parametrize("start", [0, 100])
@pytest.mark.parametrize("options", [{"colours": True}, {"grain": 20.0}, {"colours": True, "grain": 20.0}])
def test_strips_do_not_show(photo, bands, start, options, monkeypatch):
    """Whatever rows come together, however many columns, and wherever a run goes on: the same bytes."""
    other = photo[::-1, ::-1].copy()
    expected = whole(photo, other, **{"colours": False} | options)[start:]
    monkeypatch.setattr("pixelsmith.io.corrections._WIDTH", 90)
    first = max(0, start - REACH)
    edges = [max(first, edge) for edge in np.cumsum((0, *bands))]
    parts = [(top, photo[top:stop]) for top, stop in pairwise(edges) if stop > top]
    found = list(correct_rows(iter(parts), ArrayRows(other), start=start, **options))
    assert [top for top, _ in found] == [
        start + sum(len(rows) for _, rows in found[:n]) for n in range(len(found))
    ]
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in found]), expected)


@pytest.mark.parametrize("grain", [0.0, 20.0])
def test_sides_that_join_have_no_edge(photo, grain):
    other = photo[::-1].copy()
    options = {"wraps": True, "grain": grain}
    moved = whole(np.roll(photo, 50, axis=1), np.roll(other, 50, axis=1), **options)
    np.testing.assert_array_equal(moved, np.roll(whole(photo, other, **options), 50, axis=1))


def noisy(image, levels):
    grain = np.random.default_rng(0).normal(0, levels, image.shape)
    return np.clip(image + grain, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize(("levels", "least", "most"), [(1.0, 0, 0.5), (2.0, 0, 0.6), (8.0, 0.97, 1.03)])
def test_weak_detail_is_grain_and_strong_detail_stays(photo, levels, least, most):
    calm = photo // 2 + 60
    decoded = noisy(calm, levels)
    found = whole(decoded, calm, colours=False, grain=2.5).astype(float) - calm
    assert least <= found.std() / (decoded.astype(float) - calm).std() <= most


def test_grain_goes_on_the_ground_and_not_from_a_thing_beside_it(photo):
    calm = np.full((120, 200, 3), 120, dtype=np.uint8)
    decoded = noisy(calm, 1.0)
    decoded[:, 120:] = noisy(calm, 12.0)[:, 120:]
    found = whole(decoded, calm, colours=False, grain=2.5)
    assert found[:, :100].std() < 0.3 * decoded[:, :100].std()
    assert np.abs(found[:, 125:].astype(int) - decoded[:, 125:]).max() <= 1


def test_colours_of_the_decoded_image_stay_where_grain_goes(photo):
    calm = photo // 2 + 60
    shifted = calm + np.array([9, 0, 4], dtype=np.uint8)
    assert np.abs(whole(shifted, calm, colours=False, grain=2.5).astype(int) - shifted).max() <= 1
