# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from diffeat.options import SegmentationOptions
from diffeat.ranking import MaskLabels
from diffeat.segment import PixelSegmenter, label_scarce, resize_mask, slide
from PIL import Image

SIDE = 16


@pytest.fixture(scope="module")
def scenes():
    """Class of each half of the picture, and features that show it."""
    generator = torch.Generator().manual_seed(0)
    features, masks = [], []
    for number in range(6):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[:, : 4 + number] = 1 + number % 2
        value = torch.nn.functional.one_hot(torch.from_numpy(mask).long(), 3).movedim(-1, 0).float()
        features.append(value + 0.2 * torch.randn(value.shape, generator=generator))
        masks.append(mask)
    return features, masks


@pytest.mark.parametrize("probe", ["logistic", "mlp"])
def test_pixels_are_told_apart(scenes, probe):
    features, masks = scenes
    segmenter = PixelSegmenter(3, SegmentationOptions(probe=probe, side=SIDE, pixels=100)).fit(
        features[:4], masks[:4]
    )
    predicted = segmenter.predict(features[5])
    assert (predicted == torch.from_numpy(masks[5])).float().mean() > 0.9
    assert segmenter.predict(features[5], (20, 30)).shape == (20, 30)
    if probe == "mlp":
        assert segmenter.uncertainty(features[5]).shape == (SIDE, SIDE)
    else:
        with pytest.raises(TypeError, match="only the probe 'mlp'"):
            segmenter.uncertainty(features[5])


def test_ignored_pixels_teach_nothing(scenes):
    features, masks = scenes
    wrong = [mask.copy() for mask in masks]
    for mask in wrong:
        mask[mask == 2] = 255
    predicted = (
        PixelSegmenter(3, SegmentationOptions(side=SIDE, pixels=0))
        .fit(features[:4], wrong[:4])
        .predict(features[5])
    )
    assert 2 not in predicted.unique().tolist()


def test_scarce_labels_are_judged_over_shuffles(scenes):
    features, masks = scenes
    labels = MaskLabels([np.zeros((SIDE, SIDE, 3), np.uint8)] * 6, masks)
    arguments = {"num_train": 4, "runs": 3, "options": SegmentationOptions(side=SIDE, pixels=0)}
    score = label_scarce(features, labels, **arguments)
    assert len(score.scores) == 3
    assert score.mean > 0.8
    assert label_scarce(features, labels, **arguments) == score
    noise = [torch.randn(3, SIDE, SIDE) for _ in features]
    assert label_scarce(noise, labels, **arguments).mean < 0.5
    with pytest.raises(ValueError, match="num_train must leave test images of 6"):
        label_scarce(features, labels, num_train=6)


def test_specks_are_ignored(scenes):
    features, masks = scenes
    specks = [mask.copy() for mask in masks]
    for mask in specks:
        mask[0, -1] = 3  # one pixel of a class that nothing shows
    labels = MaskLabels([np.zeros((SIDE, SIDE, 3), np.uint8)] * 6, specks)
    arguments = {"num_train": 4, "runs": 2, "options": SegmentationOptions(side=SIDE, pixels=0)}
    skipped = label_scarce(features, labels, absent="skip", **arguments)
    zero = label_scarce(features, labels, **arguments)
    assert skipped.mean > 0.8
    # of four classes two or three occur among the images that judge
    shares = [a / b for a, b in zip(zero.scores, skipped.scores, strict=True)]
    assert all(min(abs(share - 0.5), abs(share - 0.75)) < 1e-6 for share in shares)


def test_masks_keep_their_classes_when_resized():
    mask = np.array([[0, 7], [255, 3]], np.uint8)
    assert resize_mask(mask, 4).tolist() == np.repeat(np.repeat(mask, 2, 0), 2, 1).tolist()


def test_segmenter_mistakes(scenes):
    features, masks = scenes
    with pytest.raises(ValueError, match="got 1 for 2 images"):
        PixelSegmenter(3).fit(features[:2], masks[:1])
    with pytest.raises(ValueError, match="at least one pixel"):
        PixelSegmenter(3, SegmentationOptions(side=SIDE)).fit(
            features[:1], [np.full((SIDE, SIDE), 255, np.uint8)]
        )


def test_windows_cover_an_image_and_overlaps_are_averaged():
    image = Image.fromarray(np.arange(7 * 10, dtype=np.uint8).reshape(7, 10)).convert("RGB")
    parts = []

    def predict(part):
        parts.append(part.size)
        values = torch.from_numpy(np.array(part)).movedim(-1, 0).float()
        return values + len(parts)  # windows disagree

    found = slide(image, predict, window=5, stride=4)
    assert parts == [(5, 5)] * 6  # columns at 0, 4 and 5, rows at 0 and 2
    count, total = torch.zeros(7, 10), torch.zeros(7, 10)
    number = 0
    for top in (0, 2):
        for left in (0, 4, 5):
            number += 1
            count[top : top + 5, left : left + 5] += 1
            total[top : top + 5, left : left + 5] += number
    wanted = torch.from_numpy(np.array(image)[..., 0]).float() + total / count
    torch.testing.assert_close(found[0], wanted)
    assert slide(image, lambda part: torch.zeros(2, *part.size[::-1]), window=64).shape == (2, 7, 10)
    with pytest.raises(ValueError, match="stride must lie between 1 and the window of 5 pixels, got 6"):
        slide(image, predict, window=5, stride=6)
