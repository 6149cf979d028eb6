# SPDX-License-Identifier: Apache-2.0
import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from itaclip.html import pack, pack_ranks, page
from itaclip.pictures import Overlay
from itaclip.results import Segmentation
from PIL import Image


def unpack(image):
    """Labels and probabilities as the page reads them."""
    channels = np.asarray(image).astype(int)
    return channels[..., 0] + 256 * channels[..., 1], channels[..., 2] / 255


def overlay(height=40, width=60, names=("background", "cat", "dog"), scores=None, seed=0):
    rng = np.random.default_rng(seed)
    result = Segmentation(
        labels=torch.from_numpy(rng.integers(0, len(names), (height, width))),
        probabilities=torch.from_numpy(rng.random((height, width), dtype=np.float32)),
        names=tuple(names),
        background=True,
        scores=scores,
    )
    return Overlay(Image.new("RGB", (width, height), (90, 120, 30)), result)


def page_of(drawn, **options):
    return page(drawn.image, drawn.segmentation, drawn.colours, **options)


def data_of(text):
    (found,) = re.findall(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def image_of(uri):
    kind, payload = uri.split(",", 1)
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(payload)))


def test_page_holds_every_pixel():
    drawn = overlay()
    data = data_of(page_of(drawn))
    labels, probabilities = unpack(image_of(data["map"]))
    np.testing.assert_array_equal(labels, drawn.segmentation.labels.numpy())
    np.testing.assert_allclose(probabilities, drawn.segmentation.probabilities.numpy(), atol=0.5 / 51 + 1e-6)
    assert data["names"] == ["background", "cat", "dog"]
    assert data["colours"] == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    assert sum(data["shares"].values()) == pytest.approx(1, abs=1e-4)
    assert data["ranks"] == []


def test_page_makes_no_request():
    text = page_of(overlay())
    assert "http://" not in text
    assert "https://" not in text
    assert "default-src 'none'" in text
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert "@@" not in text


def test_names_cannot_become_markup():
    evil = ("background", "</script><script>alert(1)</script>", "@@PHOTO@@ <b> & \u2028")
    text = page_of(overlay(names=evil), title="<img src=x onerror=alert(1)>")
    assert text.count("<script") == 2
    assert "<img src=x" not in text
    assert data_of(text)["names"] == list(evil)


def test_class_numbers_beyond_a_byte_survive():
    labels = torch.tensor([[0, 255, 256, 65535]])
    found, probabilities = unpack(pack(labels, torch.tensor([[0.0, 0.2, 0.5, 1.0]])))
    assert found.tolist() == labels.tolist()
    np.testing.assert_allclose(probabilities, [[0.0, 0.2, 0.5, 1.0]], atol=0.5 / 51 + 1e-6)


def test_best_classes_come_in_order():
    scores = torch.softmax(torch.randn(5, 30, 40, generator=torch.Generator().manual_seed(0)), dim=0)
    drawn = overlay(30, 40, names=[f"c{n}" for n in range(5)], scores=scores)
    ranks = [unpack(image) for image in pack_ranks(drawn.segmentation)]
    assert len(ranks) == 3
    np.testing.assert_array_equal(ranks[0][0], scores.argmax(dim=0).numpy())
    assert (ranks[0][1] >= ranks[1][1]).all()
    assert (ranks[1][1] >= ranks[2][1]).all()
    assert len(data_of(page_of(drawn))["ranks"]) == 3


def test_large_images_are_shown_smaller():
    data = data_of(page_of(overlay(20, 3000)))
    assert data["size"] == [1280, 9]
    assert data["original"] == [3000, 20]
    assert image_of(data["map"]).size == (1280, 9)


def test_a_usual_page_is_small():
    rows, columns = np.mgrid[0:480, 0:640]
    labels = torch.from_numpy((rows // 60 + columns // 80) % 3)
    smooth = torch.from_numpy(((rows + columns) / 1120).astype(np.float32))
    result = Segmentation(labels=labels, probabilities=smooth, names=("a", "b", "c"))
    assert len(page_of(Overlay(Image.new("RGB", (640, 480)), result))) < 60_000
