# SPDX-License-Identifier: Apache-2.0
"""The engine against the serial algorithm: every preset, odd sizes, batches, bands."""

from dataclasses import replace

import pytest
import torch
from itaclip.config import ITACLIPConfig
from itaclip.model import ITACLIP
from itaclip.pamr import affinity, refine
from itaclip.windows import resize_rows
from torch.nn import functional as F

SMALL = {"crop": 32, "stride": 13, "resize_short": 48, "resize_long": 100, "pamr_dilations": (1, 3)}


def small(name, **changes):
    config = ITACLIPConfig.preset(name, **{**SMALL, "pamr_steps": 2, **changes})
    if config.attention.mid_layers == (7, 8, 10):  # of a tower with twelve blocks
        config = replace(config, attention=replace(config.attention, mid_layers=(1, 2, 3)))
    return config


def engine_and_serial(tools, classes, config, image):
    engine = ITACLIP(tools.native(), None, config).set_text_features(tools.text(6), classes)
    labels, probabilities = tools.reference.segment(
        engine.model,
        image,
        tools.text(6),
        classes.owner,
        config.to_dict(),
        background=classes.background,
    )
    return engine.predict(image, return_scores=True), labels, probabilities


@pytest.mark.parametrize("name", ITACLIPConfig.presets())
def test_every_preset(tools, classes, name):
    found, labels, probabilities = engine_and_serial(tools, classes, small(name), tools.image(3, 53, 71))
    assert torch.allclose(found.scores, probabilities, atol=1e-5)
    assert (found.labels == labels).float().mean() > 0.999


@pytest.mark.parametrize(
    "changes",
    [
        {"crop": 0},
        {"crop": 64, "stride": 64},
        {"resize_short": 0},
        {"positions": "size", "crop": 40, "stride": 9},
        {"branches": ("hflip", "vflip")},
        {"branches": ("blur", "gray")},
        {"branches": ("hflip", "gray", "identity"), "lam": 0.1},
        {"area_threshold": 0.3, "prob_threshold": 0.3, "logit_scale": 5.0},
        {"batch_size": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(53, 71), (20, 200), (9, 11), (1, 1)], ids=str)
def test_options_and_sizes(tools, classes, changes, size):
    config = small("itaclip", **changes)
    found, labels, probabilities = engine_and_serial(tools, classes, config, tools.image(3, *size))
    assert found.labels.shape == size
    assert torch.allclose(found.scores, probabilities, atol=1e-5)
    assert (found.labels == labels).float().mean() > 0.999


def test_a_batch_of_images_is_its_images_one_by_one(tools, classes):
    config = small("itaclip")
    engine = ITACLIP(tools.native(), None, config).set_text_features(tools.text(6), classes)
    images = [tools.image(3, *size) for size in ((53, 71), (20, 20), (53, 71), (71, 53))]
    together = engine.predict(images, return_scores=True)
    for found, image in zip(together, images, strict=True):
        alone = engine.predict(image, return_scores=True)
        assert torch.allclose(found.scores, alone.scores, atol=1e-5)
        assert torch.equal(found.labels, alone.labels)


def test_batched_windows_are_serial_windows(tools, classes):
    image = tools.image(3, 53, 71)
    scores = []
    for batch_size in (1, 20, 1000):
        config = small("itaclip", batch_size=batch_size)
        engine = ITACLIP(tools.native(), None, config).set_text_features(tools.text(6), classes)
        scores.append(engine.scores(image))
    assert torch.allclose(scores[0], scores[1], atol=1e-5)
    assert torch.allclose(scores[0], scores[2], atol=1e-5)


@pytest.mark.parametrize("area_threshold", [None, 0.3])
def test_bands_and_chunks_fit_together(tools, classes, monkeypatch, area_threshold):
    config = small("itaclip", area_threshold=area_threshold, prob_threshold=0.3, logit_scale=8.0)
    engine = ITACLIP(tools.native(), None, config).set_text_features(tools.text(6), classes)
    image = tools.image(3, 150, 71)
    whole = engine.predict(image, return_scores=True)
    monkeypatch.setattr("itaclip.labels._CLASS_NUMBERS", 1)
    monkeypatch.setattr("itaclip.labels._NAME_NUMBERS", 1)
    monkeypatch.setattr("itaclip.labels._FEWEST_ROWS", 7)
    banded = engine.predict(image, return_scores=True)
    assert torch.allclose(banded.scores, whole.scores, atol=1e-5)
    assert torch.allclose(banded.probabilities, whole.probabilities, atol=1e-5)
    assert (banded.labels == whole.labels).float().mean() > 0.999


@pytest.mark.parametrize("size", [(5, 9), (40, 33)], ids=str)
@pytest.mark.parametrize("dilations", [(1,), (8, 16)], ids=str)
def test_refinement_is_that_of_all_neighbours_at_once(tools, monkeypatch, size, dilations):
    image, masks = tools.image(3, *size), tools.image(7, *size, seed=9)
    expected = tools.reference.refine(image, masks, 3, dilations)
    for block in (10, 2**16):
        monkeypatch.setattr("itaclip.pamr._CPU_BLOCK", block)
        found = refine(masks, affinity(image, dilations), steps=3, dilations=dilations)
        assert torch.allclose(found, expected, atol=1e-5)


def test_rows_of_a_resized_image(tools):
    image = tools.image(3, 20, 31)
    for size in ((47, 60), (11, 13), (20, 31)):
        whole = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
        assert torch.allclose(resize_rows(image, size, 3, 9), whole[:, 3:9], atol=1e-6)
