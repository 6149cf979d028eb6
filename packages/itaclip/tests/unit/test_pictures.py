# SPDX-License-Identifier: Apache-2.0
import io
import json

import numpy as np
import pytest
import torch
from common_kernels.runtime.images import ImageError
from common_kernels.runtime.pictures import LegendEntry
from itaclip.pictures import (
    Overlay,
    class_colours,
    encode_labels,
    label_image,
    outlines,
    paint,
    palette,
    percent,
    thickest_place,
)
from itaclip.results import Segmentation
from PIL import Image


def segmentation(labels, names=None, background=False, scores=None):
    labels = torch.as_tensor(np.asarray(labels)).long()
    names = names or [f"c{number}" for number in range(int(labels.max()) + 1)]
    probabilities = torch.linspace(0, 1, labels.numel()).reshape(labels.shape)
    return Segmentation(
        labels=labels, probabilities=probabilities, names=tuple(names), background=background, scores=scores
    )


def halves(height=40, width=60, **kwargs):
    labels = np.zeros((height, width), dtype=np.int64)
    labels[:, width // 2 :] = 1
    return segmentation(labels, **kwargs)


def photo(height=40, width=60, value=100):
    return Image.new("RGB", (width, height), (value, value, value))


def test_palette_is_the_one_of_pascal_voc():
    expected = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)]
    assert [tuple(colour) for colour in palette(6).tolist()] == expected
    assert palette(256)[15].tolist() == [192, 128, 128]
    assert palette(256)[255].tolist() == [224, 224, 192]
    assert len(np.unique(palette(4096), axis=0)) == 4096
    np.testing.assert_array_equal(palette(5, first=3), palette(8)[3:])


def test_only_the_background_is_black():
    assert class_colours(halves(background=True))[0].tolist() == [0, 0, 0]
    assert class_colours(halves())[0].tolist() == [128, 0, 0]


@pytest.mark.parametrize("background", [True, False])
def test_label_maps_hold_class_numbers_and_colours(background):
    labels = np.arange(12).reshape(3, 4) % 5
    found = Image.open(io.BytesIO(encode_labels(segmentation(labels, background=background))))
    assert found.mode == "P"
    np.testing.assert_array_equal(np.asarray(found), labels)
    expected = class_colours(segmentation(labels, background=background))[labels]
    np.testing.assert_array_equal(np.asarray(found.convert("RGB")), expected)
    assert json.loads(found.text["classes"]) == ["c0", "c1", "c2", "c3", "c4"]


@pytest.mark.parametrize(("classes", "mode"), [(255, "P"), (256, "I;16")])
def test_label_maps_of_many_classes_have_16_bits(classes, mode):
    labels = np.array([[0, classes - 1], [7, 130]])
    names = [f"name {number}" for number in range(classes)]
    found = Image.open(io.BytesIO(encode_labels(segmentation(labels, names))))
    assert found.mode == mode
    np.testing.assert_array_equal(np.asarray(found), labels)
    np.testing.assert_array_equal(np.asarray(label_image(segmentation(labels, names))), labels)


def test_background_is_not_tinted_and_classes_are():
    drawn = np.asarray(Overlay(photo(), halves(background=True), opacity=0.5).render()).astype(int)
    assert drawn.shape == (40, 60, 3)
    assert (drawn[:, :30] == 100).all()
    assert drawn[20, 45].tolist() == [114, 50, 50]
    bare = np.asarray(paint(photo(), halves(), class_colours(halves()), opacity=0, line=0))
    assert (bare == 100).all()


def test_outlines_stand_on_both_sides_of_a_border():
    found = outlines(np.array([[0, 0, 0, 1, 1, 1]]), 1)
    assert found.tolist() == [[False, False, True, True, False, False]]
    assert outlines(np.array([[0], [0], [1]]), 2)[:, 0].tolist() == [True, True, True]
    assert not outlines(np.zeros((1, 1), dtype=np.int64), 3).any()


def test_thickest_place_is_the_middle():
    mask = np.zeros((9, 20), dtype=bool)
    mask[:, 10:19] = True
    mask[4, :] = True
    assert thickest_place(mask) == (4, 14, 4)
    single = np.zeros((3, 3), dtype=bool)
    single[2, 2] = True
    assert thickest_place(single) == (2, 2, 0)


def test_legend_names_what_occurs_with_its_share():
    overlay = Overlay(photo(), halves(names=["cat", "dog", "bird"], background=True))
    assert overlay._entries() == [
        LegendEntry("cat", None, "50%"),
        LegendEntry("dog", (128, 0, 0), "50%"),
    ]


@pytest.mark.parametrize("value", [0, 127, 255])
def test_legend_stands_on_its_own_paper(value):
    """Whatever the image shows, the legend's letters contrast with what is behind them."""
    overlay = Overlay(photo(480, 640, value), halves(480, 640))
    sheet = np.asarray(overlay.render_with_legend()).astype(int)
    legend = sheet[480:]
    assert len(legend) > 20
    assert (legend == 18).any(axis=-1).mean() > 0.5
    assert (legend > 230).all(axis=-1).any()


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (3, 900), (900, 3), (2600, 40)])
def test_pictures_of_any_size_are_readable(size):
    sheet = Overlay(photo(*size), segmentation(np.zeros(size))).render_with_legend()
    assert sheet.width >= 360
    assert max(sheet.size) >= 480
    assert sheet.width <= 2048


def test_many_classes_and_long_names_fit():
    labels = np.arange(200).reshape(10, 20)
    names = [f"{number} {'long ' * 60 if number == 3 else 'name'}" for number in range(200)]
    sheet = Overlay(photo(10, 20), segmentation(labels, names)).render_with_legend()
    assert sheet.width < 600


def test_names_are_written_where_they_fit():
    overlay = Overlay(photo(480, 640), halves(480, 640, names=["cat", "dog"]))
    with_names = np.asarray(overlay.render_with_legend())
    without = np.asarray(overlay.render_with_legend(names=False))
    changed = (with_names != without).any(axis=-1)
    assert changed[:480, :320].any()
    assert changed[:480, 320:].any()
    assert not changed[480:].any()


def test_letters_beyond_ascii_do_not_fail():
    names = ["狗", "Hündin"]
    assert Overlay(photo(), halves(names=names)).render_with_legend().width >= 480
    assert json.loads(Image.open(io.BytesIO(encode_labels(halves(names=names)))).text["classes"]) == names


def test_resizing_keeps_labels_whole():
    scores = torch.rand(2, 40, 60)
    small = halves(scores=scores).resized((10, 15))
    assert small.size == (10, 15)
    assert set(small.labels.flatten().tolist()) == {0, 1}
    assert small.probabilities.shape == (10, 15)
    assert small.scores.shape == (2, 10, 15)
    same = halves()
    assert same.resized((40, 60)) is same


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="must have one size, got 10 x 10 and 40 x 60"):
        Overlay(photo(10, 10), halves())
    with pytest.raises(ValueError, match=r"opacity must lie in \[0, 1\], got 2"):
        Overlay(photo(), halves(), opacity=2)
    with pytest.raises(ValueError, match=r"colours must be \(2, 3\) integers, a row per class, got \(1, 3\)"):
        Overlay(photo(), halves(), colours=[[1, 2, 3]])
    with pytest.raises(ValueError, match=r"colours must lie in \[0, 255\], got 0..256"):
        Overlay(photo(), halves(), colours=[[0, 0, 0], [0, 256, 0]])


def test_colours_of_ones_own():
    drawn = np.asarray(Overlay(photo(), halves(), opacity=1, colours=[[9, 8, 7], [200, 0, 50]]).render())
    assert drawn[20, 5].tolist() == [9, 8, 7]
    assert drawn[20, 55].tolist() == [200, 0, 50]
    with pytest.raises(TypeError, match="image must be"):
        Overlay(3, halves())


def test_arrays_are_images_too():
    array = np.full((40, 60, 3), 100, dtype=np.uint8)
    from_array, from_image = Overlay(array, halves()).render(), Overlay(photo(), halves()).render()
    np.testing.assert_array_equal(np.asarray(from_array), np.asarray(from_image))


def test_an_image_lies_below_its_overlay_as_it_is_shown(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn
    photo(60, 40).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        from_memory = Overlay(opened, halves())
    assert from_memory.image.size == (60, 40)
    assert Overlay(tmp_path / "turned.png", halves()).image == from_memory.image


def test_saving_goes_by_suffix(tmp_path):
    overlay = Overlay(photo(), halves())
    overlay.save(tmp_path / "a.png")
    overlay.save(tmp_path / "a.webp")
    overlay.save(tmp_path / "a.html")
    overlay.save_labels(tmp_path / "labels.png")
    with Image.open(tmp_path / "a.png") as saved, Image.open(tmp_path / "labels.png") as labels:
        assert saved.width >= 360
        assert labels.size == (60, 40)
    assert (tmp_path / "a.html").read_text("utf-8").startswith("<!doctype html>")
    with pytest.raises(ImageError, match="has no known image suffix"):
        overlay.save(tmp_path / "a.doc")
    with pytest.raises(ImageError, match=r"label maps are \.png"):
        overlay.save_labels(tmp_path / "a.jpg")
    assert len(list(tmp_path.iterdir())) == 4


def test_percent_does_not_claim_nothing():
    assert [percent(share) for share in (1.0, 0.314, 0.01, 0.0001)] == ["100%", "31%", "1%", "<1%"]
