# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from common_kernels.runtime.images import ImageFile
from common_kernels.runtime.pictures import Panel
from PIL import Image
from semanir.pictures import before_after, busiest_box, compare_details


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("place", [(0, 0), (20, 33), (32, 48)])
def test_the_busiest_box_is_where_the_edges_are(place, colour):
    pixels = np.full((40, 56), 90, np.uint8)
    pixels[place[0] : place[0] + 8, place[1] : place[1] + 8] = noise(8, 8)
    pixels = np.dstack([pixels] * 3) if colour else pixels
    top, left = busiest_box(pixels, 10)
    assert 0 <= top <= 30
    assert 0 <= left <= 46
    inside = np.abs(pixels[top : top + 10, left : left + 10].astype(int) - 90).sum()
    assert inside >= 0.85 * np.abs(pixels.astype(int) - 90).sum()


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (5, 5, 3), (9, 5)])
def test_small_images(shape):
    assert busiest_box(noise(*shape), 8) == (0, 0)
    compare_details([Panel("a", "b", Image.fromarray(noise(*shape)))])


@pytest.mark.parametrize("panels", [1, 2, 4])
def test_a_comparison_has_one_column_per_panel(panels):
    one, more = (
        compare_details([Panel("title", "caption", Image.fromarray(noise(30, 60, 3)))] * n)
        for n in (1, panels)
    )
    assert one.mode == more.mode == "RGB"
    assert more.height == one.height
    assert more.width - one.width == (panels - 1) * (one.width - 14)


def test_the_crop_shows_pixels_as_they_are():
    pixels = noise(40, 40, 3)
    sheet = np.asarray(compare_details([Panel("", "", Image.fromarray(pixels))], crop=(3, 5, 10)))
    shown = sheet[-14 - 420 : -14, 14 : 14 + 420]
    np.testing.assert_array_equal(shown[21::42, 21::42], pixels[3:13, 5:15])


def test_a_crop_is_the_same_square_of_every_panel():
    flat, busy = np.full((40, 40), 77, np.uint8), np.full((40, 40), 77, np.uint8)
    busy[20:30, 8:18] = noise(10, 10)
    sheet = np.asarray(
        compare_details([Panel("", "", Image.fromarray(flat)), Panel("", "", Image.fromarray(busy))])
    )
    assert (sheet[-14 - 420 : -14, 14 : 14 + 420] == 77).all()
    assert sheet[-14 - 420 : -14, -14 - 420 : -14].std() > 30


def test_long_strips_stay_small():
    sheet = compare_details([Panel("", "", Image.new("L", (2, 20_000)))])
    assert sheet.height < 3000


def test_before_and_after_show_transparency_and_floats():
    pixels = np.zeros((20, 24, 4), np.float32)
    pixels[..., 0], pixels[:, 12:, 3] = 7.0, 1.0  # red beyond the range, the left half transparent
    small = ImageFile(pixels[::2, ::2])
    sheet = np.asarray(before_after(small, ImageFile(pixels), ("a.tif", "b.tif")))
    for left in (14, 14 + 420 + 14):
        assert tuple(sheet[sheet.shape[0] // 4, left + 30]) == (255, 255, 255)
        assert tuple(sheet[sheet.shape[0] // 4, left + 390]) == (255, 0, 0)
