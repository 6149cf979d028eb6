# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from itaclip.config import ITACLIPConfig
from itaclip.model import ITACLIP
from PIL import Image

CONFIG = ITACLIPConfig.preset(
    "itaclip", crop=32, stride=16, resize_short=48, pamr_steps=1, pamr_dilations=(1, 2)
)


@pytest.fixture
def segmenter(tools, classes):
    return ITACLIP(tools.native(), None, CONFIG).set_text_features(tools.text(6), classes)


def test_what_comes_out(segmenter, tools):
    image = tools.image(3, 50, 70)
    found = segmenter.predict(image, return_scores=True)
    assert found.labels.shape == found.probabilities.shape == (50, 70)
    assert found.labels.dtype == torch.int64
    assert found.scores.shape == (4, 50, 70)
    assert found.names == segmenter.class_names == ("background", "cat", "dog", "cow")
    assert found.background
    assert segmenter.predict(image).scores is None


def test_kinds_of_images_agree(segmenter):
    pixels = np.random.default_rng(0).integers(256, size=(40, 30, 3), dtype=np.uint8)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = segmenter.predict(pixels).labels
    for image in (Image.fromarray(pixels), tensor, tensor / 255, pixels / 255):
        assert torch.equal(segmenter.predict(image).labels, expected)
    several = segmenter.predict([pixels, Image.fromarray(pixels)])
    assert len(several) == 2
    assert len(segmenter.predict(np.stack([pixels] * 3))) == 3
    assert segmenter.predict([]) == []


@pytest.mark.parametrize("kind", ["siglip", "eva", "pe"])
def test_towers_of_timm(tools, classes, kind):
    dim = 32 if kind == "siglip" else 24
    segmenter = ITACLIP(tools.timm(kind), None, CONFIG).set_text_features(tools.text(6, dim), classes)
    found = segmenter.predict([tools.image(3, 50, 70), tools.image(3, 9, 7)], return_scores=True)
    assert [each.size for each in found] == [(50, 70), (9, 7)]
    assert all(bool(each.scores.isfinite().all()) for each in found)


def test_scores_are_text_times_features_on_the_grid_of_patches(tools, classes):
    config = replace(CONFIG, pamr_steps=0, resize_short=0)
    segmenter = ITACLIP(tools.native(), None, config).set_text_features(tools.text(6), classes)
    image = tools.image(3, 48, 64)
    features = segmenter.features(image)
    assert features.shape == (24, 6, 8)
    coarse = torch.einsum("nd,dhw->nhw", tools.text(6), features)
    scores = segmenter.scores(image)
    resized = torch.nn.functional.interpolate(scores[None], size=(6, 8), mode="bilinear")[0]
    assert torch.allclose(coarse, resized, atol=1e-5)


def test_stitching_one_window_changes_nothing(tools, classes):
    config = replace(CONFIG, crop=0, attention=replace(CONFIG.attention, locality=2.0))
    image = tools.image(3, 40, 60)
    found = [
        ITACLIP(tools.native(), None, replace(config, stitched=stitched))
        .set_text_features(tools.text(6), classes)
        .scores(image)
        for stitched in (False, True)
    ]
    assert torch.allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("branches", [("identity",), ("vflip", "identity", "hflip")], ids=str)
def test_stitching_several_windows(tools, classes, branches):
    attention = replace(CONFIG.attention, locality=2.0)
    config = replace(CONFIG, stitched=True, branches=branches, batch_size=4, attention=attention)
    segmenter = ITACLIP(tools.native(), None, config).set_text_features(tools.text(6), classes)
    image = tools.image(3, 50, 70)
    steps = []
    found = segmenter.predict([image, image], return_scores=True, progress=lambda *s: steps.append(s))
    assert torch.equal(found[0].scores, found[1].scores)
    assert steps[-1][0] == steps[-1][1]
    apart = ITACLIP(tools.native(), None, replace(config, stitched=False))
    apart.set_text_features(tools.text(6), classes)
    assert not torch.allclose(apart.predict(image, return_scores=True).scores, found[0].scores, atol=1e-4)


def test_stitching_a_mirrored_picture_mirrors_the_scores(tools, classes):
    # with both flips of a branch pair, mirrored windows must lie where they are mirrored to
    attention = replace(CONFIG.attention, locality=2.0)
    config = replace(CONFIG, stitched=True, branches=("identity", "hflip"), lam=0.5, attention=attention)
    segmenter = ITACLIP(tools.native(), None, config).set_text_features(tools.text(6), classes)
    image = tools.image(3, 48, 64)
    scores, mirrored = segmenter.scores(image), segmenter.scores(image.flip(-1))
    assert torch.allclose(scores, mirrored.flip(-1), atol=1e-4)


@pytest.mark.parametrize("stitched", [False, True])
def test_a_prior_names_things_and_leaves_the_background(tools, classes, stitched):
    plain = replace(CONFIG, pamr_steps=0, closing=False, resize_short=0, stitched=stitched)
    image = tools.image(3, 32, 32)

    def scores(**changes):
        segmenter = ITACLIP(tools.native(), None, replace(plain, **changes))
        return segmenter.set_text_features(tools.text(6), classes).scores(image)

    before, after = scores(), scores(prior_weight=2.0)
    # two names of the background come first
    assert torch.allclose(after[:2], before[:2], atol=1e-6)
    assert not torch.allclose(after[2:], before[2:], atol=1e-2)
    # a prior of great weight is all that tells the names apart, here that of the whole image
    whole = scores(prior_weight=1000.0, prior_sides=(1.0,))
    pooled = torch.nn.functional.normalize(tools.native().encode_image(_normalised(tools, image)), dim=-1)
    assert (whole[2:].argmax(0) == (tools.text(6) @ pooled[0])[2:].argmax()).all()


def _normalised(tools, image):
    normalizer = ITACLIP(tools.native(), None, CONFIG).windows.normalizer
    return normalizer(image, (32, 32), torch.device("cpu"))[None]


def test_without_weight_the_prior_is_not_even_looked_at(tools, classes, monkeypatch):
    config = replace(CONFIG, prior_sides=(0.3,))
    image = tools.image(3, 50, 70)
    found = []
    for each in (CONFIG, config):
        segmenter = ITACLIP(tools.native(), None, each).set_text_features(tools.text(6), classes)
        monkeypatch.setattr(segmenter.encoder, "pooled", None)
        found.append(segmenter.predict(image, return_scores=True).scores)
    assert torch.equal(*found)


def test_progress_counts_windows(segmenter, tools):
    steps = []
    segmenter.predict(tools.image(3, 50, 70), progress=lambda done, total: steps.append((done, total)))
    # of 48 x 67 pixels: two rows of windows, four columns
    assert steps[-1] == (8, 8)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_low_precision_agrees(tools, classes):
    import copy

    image = tools.image(3, 50, 70)
    config = replace(CONFIG, logit_scale=5.0, closing=False)
    exact = ITACLIP(tools.native(), None, config).set_text_features(tools.text(6), classes)
    half = ITACLIP(copy.deepcopy(tools.native()).bfloat16(), None, config)
    half.set_text_features(tools.text(6), classes)
    expected, found = (each.predict(image, return_scores=True) for each in (exact, half))
    assert (expected.scores - found.scores).abs().max() < 0.05
    assert (expected.labels == found.labels).float().mean() > 0.9


def test_names_go_through_the_text_tower():
    from open_clip.model import CLIP

    torch.manual_seed(0)
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "patch_size": 8, "layers": 4, "width": 32, "head_width": 16}
    model = CLIP(24, vision, text).eval()
    tokenizer = open_clip.get_tokenizer("ViT-B-16")
    segmenter = ITACLIP(model, tokenizer, CONFIG)
    segmenter.set_classes({"cat": ["feline"], "dog": []}, background=["sky"])
    found = segmenter.predict(torch.rand(3, 32, 32))
    assert found.names == ("background", "cat", "dog")
    assert segmenter._text.norm(dim=1).tolist() == pytest.approx([1, 1, 1, 1], abs=1e-5)
    segmenter.set_classes(["cat", "dog"], aux={"cat": "a pet that purrs", "dog": "a pet that barks"})
    assert segmenter.class_names == ("cat", "dog")
    assert segmenter._text.norm(dim=1).max() < 1
    with pytest.raises(ValueError, match="aux has no text for 'dog'"):
        segmenter.set_classes(["cat", "dog"], aux={"cat": "a pet that purrs"})
    bare = ITACLIP(model, tokenizer, replace(CONFIG, templates="plain")).set_classes(["cat", "dog"])
    expected = model.encode_text(tokenizer(["cat", "dog"]), normalize=True)
    torch.testing.assert_close(bare._text, expected, atol=1e-5, rtol=0)


def test_what_is_refused(tools, classes):
    segmenter = ITACLIP(tools.native(), None, CONFIG)
    with pytest.raises(RuntimeError, match="call set_classes first"):
        segmenter.predict(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="one row per name"):
        segmenter.set_text_features(torch.zeros(5, 24), classes)
    with pytest.raises(ValueError, match="before the last of 4 blocks"):
        ITACLIP(tools.native(), None, ITACLIPConfig.preset("voc21"))
    with pytest.raises(ValueError, match="at least one patch of 8 px"):
        ITACLIP(tools.native(), None, replace(CONFIG, crop=4, stride=4))


def test_importing_the_package_loads_no_model_library():
    import subprocess
    import sys

    code = (
        "import sys, itaclip; assert 'open_clip' not in sys.modules; "
        "itaclip.ITACLIP; 'open_clip' in sys.modules or 1/0"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    import itaclip

    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = itaclip.Nothing
