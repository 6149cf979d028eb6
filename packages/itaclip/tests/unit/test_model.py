# SPDX-License-Identifier: Apache-2.0
import copy
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from itaclip.config import ITACLIPConfig
from itaclip.demo import DemoScenes
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


def test_a_subclass_adjusts_scores(tools, classes):
    class Louder(ITACLIP):
        def adjust_scores(self, prepared, scores):
            assert prepared.size == (50, 70)
            return replace(scores, values=scores.values * torch.tensor([1.0, 1, 1, 1, 1, 100])[:, None, None])

    plain = ITACLIP(tools.native(), None, CONFIG).set_text_features(tools.text(6), classes)
    louder = Louder(tools.native(), None, CONFIG).set_text_features(tools.text(6), classes)
    image = tools.image(3, 50, 70)
    assert torch.allclose(louder.scores(image)[:5], plain.scores(image)[:5], atol=1e-6)
    assert torch.allclose(louder.scores(image)[5], 100 * plain.scores(image)[5], atol=1e-3)
    assert not torch.equal(louder.predict(image).labels, plain.predict(image).labels)


def test_progress_counts_windows(segmenter, tools):
    steps = []
    segmenter.predict(tools.image(3, 50, 70), progress=lambda done, total: steps.append((done, total)))
    # of 48 x 67 pixels: two rows of windows, four columns
    assert steps[-1] == (8, 8)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_low_precision_agrees():
    """On a trained model: labels of random weights hang on rounding alone."""
    scenes = DemoScenes.load()
    # without closing, a pixel counts once
    config = replace(ITACLIPConfig.preset("tiny-shapes"), closing=False, templates="plain")
    exact = ITACLIP.from_pretrained("tiny-shapes", preset=config, device="cpu", dtype="float32")
    exact.set_classes(scenes.classes, background=scenes.background)
    expected = exact.predict(scenes.images[0]).labels
    assert len(expected.unique()) > 3
    for dtype in (torch.float16, torch.bfloat16):
        half = ITACLIP(copy.deepcopy(exact.model).to(dtype), None, config)
        half.set_text_features(exact.text_features, exact.classes)
        assert (half.predict(scenes.images[0]).labels == expected).float().mean() > 0.99


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
    with pytest.raises(ValueError, match="no auxiliary text for 'dog'"):
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
        ITACLIP(tools.native(), None, ITACLIPConfig.preset("itaclip", dataset="voc21"))
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

    with pytest.raises(AttributeError, match="attribute Nothing"):
        _ = itaclip.Nothing
