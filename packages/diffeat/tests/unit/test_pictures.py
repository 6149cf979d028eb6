# SPDX-License-Identifier: Apache-2.0
import base64
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffeat.html import compress, similarity_page
from diffeat.pictures import (
    cluster_maps,
    cluster_pictures,
    draw_matches,
    heat_picture,
    label_picture,
    marked,
    overlay,
    pca_pictures,
    side_by_side,
    stacked,
    titled,
    to_picture,
    with_legend,
)
from PIL import Image


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    value = 0.1 * torch.randn(5, 6, 8, generator=generator)
    value[0, :, :3] += 2
    return value


def test_components_show_what_differs_most(features):
    picture = np.asarray(pca_pictures([features])[0]).astype(int)
    assert picture.shape == (6, 8, 3)
    assert abs(picture[:, :3, 0].mean() - picture[:, 3:, 0].mean()) > 150


def test_one_colour_means_one_feature_in_all_pictures(features):
    one, other = pca_pictures([features, features.flip(2)])
    assert np.array_equal(np.asarray(one), np.asarray(other)[:, ::-1])


def test_few_channels_leave_colours_out(features):
    assert np.asarray(pca_pictures([features[:1]])[0])[..., 1:].max() == 0
    with pytest.raises(ValueError, match="the same channels"):
        pca_pictures([features, features[:2]])


def test_clusters_are_numbered_by_size(features):
    (labels,) = cluster_maps([features], 2)
    assert (labels[:, 3:] == 0).all()
    assert (labels[:, :3] == 1).all()
    assert len(cluster_pictures([features], 2)[0].getcolors()) == 2
    with pytest.raises(ValueError, match="between 1 and the 48 cells, got 49"):
        cluster_maps([features], 49)


def test_heat_runs_from_dark_to_bright():
    picture = np.asarray(heat_picture(torch.tensor([[0.0, 0.5, 1.0]]))).astype(int).sum(-1)
    assert (np.diff(picture[0]) > 0).all()
    fixed = np.asarray(heat_picture(torch.tensor([[0.5, 0.5]]), low=0, high=1))
    assert np.array_equal(fixed[0, 0], np.asarray(heat_picture(torch.tensor([[0.0, 0.5, 1.0]])))[0, 1])


def test_overlays_and_rows_have_the_sizes_of_images():
    image = Image.new("RGB", (40, 20), "white")
    small = Image.new("RGB", (4, 2), "black")
    assert overlay(image, small, opacity=0.5).getpixel((5, 5)) == (127, 127, 127)
    assert side_by_side([image, small], height=20).size == (40 + 40 + 36, 20 + 24)
    assert to_picture(torch.ones(3, 2, 4)).size == (4, 2)


def test_a_legend_shows_the_classes_that_occur_in_their_colours():
    labels = torch.tensor([[0, 0, 2, 255]])
    picture = label_picture(labels, 3).resize((300, 75), Image.Resampling.NEAREST)
    sheet = with_legend(picture, labels, ["ground", "horse", "rider"])
    assert sheet.crop((0, 0, 300, 75)).tobytes() == picture.tobytes()
    below = {colour for _, colour in sheet.crop((0, 75, 300, sheet.height)).getcolors(10_000)}
    colours = [picture.getpixel((x, 0)) for x in (0, 200, 299)]
    assert [colour in below for colour in colours] == [True, True, False]
    assert label_picture(torch.tensor([[1]]), 3).getpixel((0, 0)) not in below
    # another name gives other letters, of many names each gets its place
    assert with_legend(picture, labels, ["sky", "horse", "rider"]).tobytes() != sheet.tobytes()
    many = with_legend(picture, torch.arange(9)[None], [f"a long name {i}" for i in range(9)])
    assert many.height > sheet.height + 3 * 14
    assert with_legend(picture.resize((20, 5)), labels, ["ground", "horse", "rider"]).width == 240


def test_matches_are_drawn_where_they_are():
    image = Image.new("RGB", (100, 100), "black")
    points = torch.tensor([[0.5, 0.5], [0.1, 0.9]])
    sheet = draw_matches(image, image, points, points, is_right=torch.tensor([True, False]), height=100)
    assert sheet.getpixel((12 + 50, 12 + 50)) == (70, 200, 110)
    assert sheet.getpixel((24 + 100 + 10, 12 + 90)) == (230, 70, 70)
    assert draw_matches(image, image, points, points).size[0] > 800
    with pytest.raises(ValueError, match="as many points on both sides, got 2 and 1"):
        draw_matches(image, image, points, points[:1])


def test_compressed_products_are_cosines():
    value = torch.randn(100, 6, 7, generator=torch.Generator().manual_seed(0))
    flat = value.flatten(1)
    cosines = torch.nn.functional.normalize(flat, dim=0)
    for channels, tolerance in ((40, 0.02), (100, 0.05)):
        (vectors,), kept = compress([value[:channels]])
        part = torch.nn.functional.normalize(flat[:channels], dim=0)
        wide = torch.from_numpy(vectors.astype(np.float64)) / 127
        assert (wide @ wide.T - (part.T @ part)).abs().max() < tolerance
        assert vectors.shape == (42, min(channels, 64))
        # 42 cells span at most 42 directions, so 64 keep everything
        assert kept == pytest.approx(1)
    assert cosines.shape == (100, 42)


def test_a_page_carries_everything_and_no_markup_of_captions(features):
    image = Image.new("RGB", (80, 60), "red")
    text = similarity_page(
        [image, image], [features, features], title="a <b>", captions=["</script><i>", "two"]
    )
    assert "a &lt;b&gt;" in text
    assert "</script><i>" not in text
    assert not re.search(r"(src|href)=.https?:", text)
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', text, re.S)[1])
    assert data["numbers"] == 5
    assert [view["size"] for view in data["views"]] == [[8, 6], [8, 6]]
    vectors = np.frombuffer(base64.b64decode(data["views"][0]["vectors"]), np.int8)
    assert vectors.size == 8 * 6 * 5
    with pytest.raises(ValueError, match="each image must have features, got 1 for 2"):
        similarity_page([image, image], [features])


def test_large_maps_are_shrunk():
    image = Image.new("RGB", (2000, 1000))
    text = similarity_page([image], [torch.randn(2, 100, 256)])
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', text, re.S)[1])
    assert data["views"][0]["size"] == [128, 50]
    assert len(text) < 200_000


def test_words_stand_above_and_move_nothing():
    picture = Image.new("RGB", (60, 20), "red")
    plain = side_by_side([picture, picture], height=20)
    worded = side_by_side([picture, picture], height=20, captions=("one", "two"))
    band = worded.height - plain.height
    assert worded.width == plain.width
    assert np.array_equal(np.asarray(worded)[12 + band :], np.asarray(plain)[12:])
    assert np.asarray(worded)[12 : 12 + band].max() > 200  # letters
    assert np.array_equal(
        np.asarray(stacked([picture, picture], title="both"))[-40:], np.asarray(picture)[[0] * 40]
    )
    with pytest.raises(ValueError, match="shorter"):
        side_by_side([picture, picture], captions=("one",))


def test_long_titles_are_cut_at_the_edge():
    picture = Image.new("RGB", (80, 4))
    long, longer = (np.asarray(titled(picture, "up-level1-repeat0" * many)) for many in (5, 50))
    assert long.shape == (26, 80, 3)
    assert np.array_equal(long, longer)
    assert long[:, -3:].max() < 60  # no letter is cut in half
    assert titled(Image.new("RGB", (1, 1)), "word").size == (1, 23)


def test_a_mark_lies_on_its_place():
    picture = Image.new("L", (100, 50))
    shown = np.asarray(marked(picture, (0.75, 0.5)))
    rows, columns = np.nonzero(shown.max(axis=-1))
    assert (columns.mean(), rows.mean()) == pytest.approx((75, 25), abs=0.6)
    assert picture.getextrema() == (0, 0)


def test_matches_next_to_each_other_have_colours_far_apart():
    image = Image.new("RGB", (40, 40))
    points = torch.stack([torch.linspace(0.1, 0.9, 9), torch.full((9,), 0.5)], dim=1)
    drawing = np.asarray(draw_matches(image, image, points, points, height=400)).astype(int)
    dots = [drawing[212 - 2, 12 + round(400 * float(x))] for x, _ in points]
    assert all(abs(one - other).max() > 100 for one, other in pairwise(dots))
