# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from diffeat.heads import AggregationHead, UPerHead, levels_of
from diffeat.ranking import MaskLabels
from diffeat.segment import PixelSegmenter, label_scarce, resize_mask
from diffeat.training import CorrespondenceModule, SegmentationModule
from torch.utils.data import DataLoader

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
    segmenter = PixelSegmenter(3, probe=probe, side=SIDE, pixels=100).fit(features[:4], masks[:4])
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
    predicted = PixelSegmenter(3, side=SIDE, pixels=None).fit(features[:4], wrong[:4]).predict(features[5])
    assert 2 not in predicted.unique().tolist()


def test_scarce_labels_are_judged_over_shuffles(scenes):
    features, masks = scenes
    labels = MaskLabels([np.zeros((SIDE, SIDE, 3), np.uint8)] * 6, masks)
    arguments = {"num_train": 4, "runs": 3, "probe": "logistic", "side": SIDE}
    score = label_scarce(features, labels, **arguments)
    assert len(score.scores) == 3
    assert score.mean > 0.8
    assert label_scarce(features, labels, **arguments) == score
    noise = [torch.randn(3, SIDE, SIDE) for _ in features]
    assert label_scarce(noise, labels, **arguments).mean < 0.5
    with pytest.raises(ValueError, match="num_train must leave images of 6 to judge"):
        label_scarce(features, labels, num_train=6)


def test_specks_are_ignored(scenes):
    features, masks = scenes
    specks = [mask.copy() for mask in masks]
    for mask in specks:
        mask[0, -1] = 3  # one pixel of a class that nothing shows
    labels = MaskLabels([np.zeros((SIDE, SIDE, 3), np.uint8)] * 6, specks)
    arguments = {"num_train": 4, "runs": 2, "probe": "logistic", "side": SIDE}
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
        PixelSegmenter(3, side=SIDE).fit(features[:1], [np.full((SIDE, SIDE), 255, np.uint8)])


def test_levels_are_grouped_by_size():
    features = {"a": torch.ones(2, 3, 8, 8), "b": torch.ones(2, 5, 4, 4), "c": torch.ones(2, 1, 8, 8)}
    assert [tuple(level.shape) for level in levels_of(features)] == [(2, 5, 4, 4), (2, 4, 8, 8)]
    with pytest.raises(ValueError, match="map must be"):
        levels_of({"map": torch.ones(2, 3, 8)})


def trainer(steps):
    return pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


@pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning")
@pytest.mark.filterwarnings("ignore:.*isinstance.*:FutureWarning")
def test_a_pyramid_head_learns(scenes):
    torch.manual_seed(0)
    features, masks = scenes
    items = [
        ({"fine": value, "coarse": value[:, ::2, ::2]}, torch.from_numpy(mask))
        for value, mask in zip(features, masks, strict=True)
    ]
    head = UPerHead([3, 3], 3, channels=16, dropout=0)
    module = SegmentationModule(head, 3, learning_rate=1e-2)
    loader = DataLoader(items, batch_size=3)
    fitting = trainer(30)
    fitting.fit(module, loader)
    assert head(levels_of({name: value[None] for name, value in items[0][0].items()})).shape == (1, 3, 16, 16)
    found = fitting.validate(module, loader, verbose=False)[0]
    assert found["val/miou"] > 0.8


@pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning")
@pytest.mark.filterwarnings("ignore:.*isinstance.*:FutureWarning")
def test_a_correspondence_head_learns():
    torch.manual_seed(0)
    signal, side = torch.randn(4, 8, 8), 8
    # half of the channels show other things in the two images
    source = torch.cat([signal, 3 * torch.randn(4, 8, 8)])
    target = torch.cat([signal, 3 * torch.randn(4, 8, 8)])
    points = torch.rand(30, 2)
    module = CorrespondenceModule(AggregationHead(8), side=side, learning_rate=1e-2)
    batch = (source, target, points, points)
    before = float(module.loss(batch).detach())
    trainer(40).fit(module, DataLoader([batch], batch_size=None))
    assert float(module.loss(batch).detach()) < 0.5 * before


def test_the_correspondence_loss_by_hand():
    module = CorrespondenceModule(torch.nn.Identity(), side=2, temperature=1.0)
    eye = torch.eye(4).view(4, 2, 2)
    points = torch.tensor([[0.25, 0.25], [0.75, 0.25]])
    # each cosine is 1 with its own cell and 0 with the three others
    expected = -torch.log(torch.tensor(1.0).exp() / (torch.tensor(1.0).exp() + 3))
    torch.testing.assert_close(module.loss((eye, eye, points, points)), expected)


def test_heads_refuse_nothing_to_work_on():
    with pytest.raises(ValueError, match="at least one level"):
        UPerHead([], 3)
