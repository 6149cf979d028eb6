# SPDX-License-Identifier: Apache-2.0
"""The engine against the serial algorithm: every method, odd sizes, batches, bands, and fp64."""

import copy
from dataclasses import replace

import pytest
import torch
from itaclip.config import ITACLIPConfig
from itaclip.inputs import CLIP_MEAN, CLIP_STD
from itaclip.model import ITACLIP
from itaclip.pamr import affinity, refine
from itaclip.text.classes import ClassList
from itaclip.windows import resize_rows, resized_shape
from torch import nn
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


# those whose last block is a sum of maps; the others are held in test_attention.py
OF_MAPS = [
    name
    for name in ITACLIPConfig.presets()
    if name not in ("gem", "scclip", "proxyclip", "corrclip", "trident")
]


@pytest.mark.parametrize("dataset", [None, "voc21"])
@pytest.mark.parametrize("name", OF_MAPS)
def test_every_preset(tools, classes, name, dataset):
    config = small(name, dataset=dataset)
    found, labels, probabilities = engine_and_serial(tools, classes, config, tools.image(3, 53, 71))
    assert torch.allclose(found.scores, probabilities, atol=1e-5)
    assert (found.labels == labels).float().mean() > 0.999


@pytest.mark.parametrize(
    "changes",
    [
        {"crop": 0},
        {"crop": 0, "pamr_whole": True},
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


@pytest.mark.parametrize("changes", [{}, {"crop": 0}], ids=str)
def test_similarities_are_those_of_fp64(tools, classes, changes):
    config = small("itaclip", dataset="voc21", **changes)
    engine = ITACLIP(tools.native(), None, config).set_text_features(tools.text(6), classes)
    pixels, reference, visual = tools.image(3, 53, 71), tools.reference, tools.exact().visual
    with torch.inference_mode():
        image = reference.prepare(pixels.double(), 8, config.to_dict())
        expected = reference.image_scores(visual, image, (53, 71), tools.text(6).double(), config.to_dict())
    assert (engine.scores(pixels).double() - expected).abs().max() < 5e-6


@pytest.mark.parametrize("size", [(53, 71), (40, 32), (20, 33)], ids=str)
def test_a_whole_image_goes_from_patches_to_pixels_in_one_step(tools, classes, size):
    """Held by open_clip alone: no window, no refinement, one enlargement."""
    config = ITACLIPConfig.preset("vanilla", crop=0, resize_short=0, pamr_steps=10, positions="size")
    pixels, model = tools.image(3, *size), tools.native()
    engine = ITACLIP(model, None, config).set_text_features(tools.text(6), classes)
    visual = copy.deepcopy(tools.exact()).visual
    grid = (size[0] // 8, size[1] // 8)
    table = visual.positional_embedding
    image = table[1:].T.reshape(1, 32, 4, 4)
    patches = F.interpolate(image, size=grid, mode="bicubic").flatten(2)[0].T if grid != (4, 4) else table[1:]
    visual.positional_embedding = nn.Parameter(torch.cat([table[:1], patches]), requires_grad=False)
    mean, std = torch.tensor(CLIP_MEAN).view(3, 1, 1), torch.tensor(CLIP_STD).view(3, 1, 1)
    x = visual._embeds(((pixels - mean) / std)[None].double())
    tokens = visual.ln_post(visual.transformer(x)) @ visual.proj
    cosines = tools.text(6).double() @ F.normalize(tokens[0, 1:], dim=-1).T
    maps = F.interpolate(cosines.reshape(1, 6, *grid), size=size, mode="bilinear")
    assert (engine.scores(pixels).double() - maps[0]).abs().max() < 5e-6
    expected = (maps[0] * config.logit_scale).softmax(dim=0)
    names = torch.tensor(classes.owner)
    best = torch.stack([expected[names == number].amax(dim=0) for number in range(len(classes))])
    found = engine.predict(pixels, return_scores=True).scores.double()
    # a probability moves by the scale times what a similarity moves, at most
    assert (found - best).abs().max() < 5e-6 * config.logit_scale


def test_refinement_of_a_whole_image_is_an_option(tools, classes):
    image = tools.image(3, 53, 71)
    config = small("itaclip", crop=0)

    def scores(**changes):
        engine = ITACLIP(tools.native(), None, replace(config, **changes))
        return engine.set_text_features(tools.text(6), classes).scores(image)

    assert torch.equal(scores(), scores(pamr_steps=0))
    refined = scores(pamr_whole=True)
    assert not torch.allclose(refined, scores(), atol=1e-3)
    whole = refine(
        scores(), affinity(resized(image), config.pamr_dilations), steps=2, dilations=config.pamr_dilations
    )
    assert torch.allclose(refined, whole, atol=1e-6)


def resized(image):
    """Return the normalised image as refinement sees it: to the tower's size, and back."""
    mean, std = torch.tensor(CLIP_MEAN).view(3, 1, 1), torch.tensor(CLIP_STD).view(3, 1, 1)
    size = tuple(image.shape[-2:])
    small_one = F.interpolate(image[None], size=resized_shape(*size, short=48, long=100), mode="bilinear")
    return F.interpolate((small_one - mean) / std, size=size, mode="bilinear")[0]


def test_features_of_a_whole_image_are_those_of_its_patches(tools, classes):
    config = ITACLIPConfig.preset("maskclip", crop=0, resize_short=0)
    engine = ITACLIP(tools.native(), None, config)
    image = tools.image(3, 45, 70)
    prepared = engine.windows.prepare(image)
    (maps,) = engine.windows.encode([prepared], lambda features: features)
    assert torch.equal(engine.features(image), maps.values)


def test_a_batch_of_images_is_its_images_one_by_one(tools, classes):
    config = small("itaclip")
    engine = ITACLIP(tools.native(), None, config).set_text_features(tools.text(6), classes)
    images = [tools.image(3, *size) for size in ((53, 71), (20, 20), (53, 71), (71, 53))]
    together = engine.predict(images, return_scores=True)
    for found, image in zip(together, images, strict=True):
        alone = engine.predict(image, return_scores=True)
        assert torch.allclose(found.scores, alone.scores, atol=1e-5)
        assert torch.equal(found.labels, alone.labels)


@pytest.mark.parametrize("area_threshold", [None, 0.2])
def test_permuted_classes_permute_the_labels(tools, classes, area_threshold):
    """Exact, from names to labels: windows, refinement, rules."""
    config = small(
        "itaclip", closing=False, area_threshold=area_threshold, prob_threshold=0.3, logit_scale=8.0
    )
    order = (0, 3, 1, 2)
    rows = [row for number in order for row, owner in enumerate(classes.owner) if owner == number]
    moved_classes = ClassList(tuple(classes.classes[number] for number in order), background=True)
    image, model, text = tools.image(3, 53, 71), tools.native(), tools.text(6)
    labels = ITACLIP(model, None, config).set_text_features(text, classes).predict(image).labels
    moved = ITACLIP(model, None, config).set_text_features(text[rows], moved_classes).predict(image).labels
    assert len(labels.unique()) > 2
    assert torch.equal(torch.tensor(order)[moved], labels)


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
    expected = tools.reference.refine(image.double(), masks.double(), 3, dilations)
    for block in (10, 2**16):
        monkeypatch.setattr("itaclip.pamr._CPU_BLOCK", block)
        found = refine(masks, affinity(image, dilations), steps=3, dilations=dilations)
        assert torch.allclose(found.double(), expected, atol=1e-5)


def test_rows_of_a_resized_image(tools):
    image = tools.image(3, 20, 31)
    for size in ((47, 60), (11, 13), (20, 31)):
        whole = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
        assert torch.allclose(resize_rows(image, size, 3, 9), whole[:, 3:9], atol=1e-6)
