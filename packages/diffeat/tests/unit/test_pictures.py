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
    add_class_legend,
    cluster_maps,
    draw_clusters,
    draw_components,
    draw_heat,
    draw_matches,
    draw_overlays,
    label_image,
    mark_point,
    overlay,
)
from PIL import Image


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    value = 0.1 * torch.randn(5, 6, 8, generator=generator)
    value[0, :, :3] += 2
    return value


def test_components_show_what_differs_most(features):
    drawn = np.asarray(draw_components([features])[0]).astype(int)
    assert drawn.shape == (6, 8, 3)
    assert abs(drawn[:, :3, 0].mean() - drawn[:, 3:, 0].mean()) > 150


def test_one_colour_means_one_feature_in_all_images(features):
    one, other = draw_components([features, features.flip(2)])
    assert np.array_equal(np.asarray(one), np.asarray(other)[:, ::-1])


def test_few_channels_leave_colours_out(features):
    assert np.asarray(draw_components([features[:1]])[0])[..., 1:].max() == 0
    with pytest.raises(ValueError, match="the same channels"):
        draw_components([features, features[:2]])


def test_clusters_are_numbered_by_size(features):
    (labels,) = cluster_maps([features], 2)
    assert (labels[:, 3:] == 0).all()
    assert (labels[:, :3] == 1).all()
    assert len(draw_clusters([features], 2)[0].getcolors()) == 2
    with pytest.raises(ValueError, match="between 1 and the 48 cells, got 49"):
        cluster_maps([features], 49)


def test_heat_runs_from_dark_to_bright():
    drawn = np.asarray(draw_heat(torch.tensor([[0.0, 0.5, 1.0]]))).astype(int).sum(-1)
    assert (np.diff(drawn[0]) > 0).all()
    fixed = np.asarray(draw_heat(torch.tensor([[0.5, 0.5]]), low=0, high=1))
    assert np.array_equal(fixed[0, 0], np.asarray(draw_heat(torch.tensor([[0.0, 0.5, 1.0]])))[0, 1])


def test_overlays_have_the_sizes_of_images():
    image = Image.new("RGB", (40, 20), "white")
    small = Image.new("RGB", (4, 2), "black")
    assert overlay(image, small, opacity=0.5).getpixel((5, 5)) == (127, 127, 127)
    one = draw_overlays([image], [small], ["a.png"], caption="components", title="mid-vit-out")
    both = draw_overlays([image] * 2, [small] * 2, ["a.png", "b.png"], caption="c", title="mid-vit-out")
    assert one.width == both.width
    assert one.height < both.height < 2 * one.height


def test_a_legend_shows_the_classes_that_occur_in_their_colours():
    labels = torch.tensor([[0, 0, 2, 255]])
    drawn = label_image(labels, 3).resize((400, 100), Image.Resampling.NEAREST)
    assert np.array_equal(np.unique(np.asarray(drawn)), [0, 2, 255])
    sheet = add_class_legend(drawn, labels, ["ground", "horse", "rider"])
    rgb = drawn.convert("RGB")
    assert sheet.crop((0, 0, 400, 100)).tobytes() == rgb.tobytes()
    below = {colour for _, colour in sheet.crop((0, 100, 400, sheet.height)).getcolors(10_000)}
    colours = [rgb.getpixel((x, 0)) for x in (0, 250, 399)]
    assert [colour in below for colour in colours] == [True, True, False]
    assert label_image(torch.tensor([[1]]), 3).convert("RGB").getpixel((0, 0)) not in below


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


def test_a_mark_lies_on_its_place():
    image = Image.new("L", (100, 50))
    shown = np.asarray(mark_point(image, (0.75, 0.5)))
    rows, columns = np.nonzero(shown.max(axis=-1))
    assert (columns.mean(), rows.mean()) == pytest.approx((75, 25), abs=0.6)
    assert image.getextrema() == (0, 0)


def test_matches_next_to_each_other_have_colours_far_apart():
    image = Image.new("RGB", (40, 40))
    points = torch.stack([torch.linspace(0.1, 0.9, 9), torch.full((9,), 0.5)], dim=1)
    drawing = np.asarray(draw_matches(image, image, points, points, height=400)).astype(int)
    dots = [drawing[212 - 2, 12 + round(400 * float(x))] for x, _ in points]
    assert all(abs(one - other).max() > 100 for one, other in pairwise(dots))
