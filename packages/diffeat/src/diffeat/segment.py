# SPDX-License-Identifier: Apache-2.0
"""Segmentation from few labelled images by classifiers of single pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from diffeat.options import Absent, SegmentationOptions
from diffeat.ranking.labels import IGNORED, MaskLabels
from diffeat.ranking.probes import MLPEnsemble, make_probe
from diffeat.scores import mean_iou

# classes with fewer pixels in an image are ignored there
_LEAST_PIXELS = 20


class PixelSegmenter:
    """Classifies every pixel by its features alone.

    Args:
        num_classes: Number of classes.
        options: Probe, size and pixels of learning.
        seed: Random seed of pixels and weights.
        device: Device on which MLPs learn.
    """

    def __init__(
        self,
        num_classes: int,
        options: SegmentationOptions | None = None,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        options = options or SegmentationOptions()
        self.num_classes = num_classes
        self.side = options.side
        self.pixels = options.pixels
        self.seed = seed
        self.probe = make_probe(options.probe, num_classes, seed=seed, device=device)

    def fit(self, features: Sequence[Tensor], masks: Sequence[NDArray[np.uint8]]) -> Self:
        """Learn from labelled images.

        Args:
            features: ``(C, h, w)`` of each image.
            masks: Class numbers ``(H, W)`` of each; 255 is ignored.

        Raises:
            ValueError: If counts differ or no pixel is labelled.
        """
        if len(features) != len(masks):
            raise ValueError(
                f"there must be a mask for each image, got {len(masks)} for {len(features)} images"
            )
        vectors: list[Tensor] = []
        classes: list[Tensor] = []
        for index, (value, mask) in enumerate(zip(features, masks, strict=True)):
            wanted = resize_mask(mask, self.side)
            places = (wanted.flatten() != IGNORED).nonzero().flatten().numpy()
            if 0 < self.pixels < len(places):
                places = np.random.default_rng([self.seed, index]).choice(places, self.pixels, replace=False)
            chosen = torch.from_numpy(np.sort(places))
            vectors.append(_pixels(value, (self.side, self.side))[chosen])
            classes.append(wanted.flatten()[chosen])
        labels = torch.cat(classes)
        if not len(labels):
            raise ValueError("masks must label at least one pixel, got none")
        self.probe.fit(torch.cat(vectors), labels)
        return self

    def predict(self, features: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Class numbers of an image.

        Args:
            features: ``(C, h, w)``.
            size: Height and width of the result; the square of learning if ``None``.

        Returns:
            ``(H, W)``, int64.
        """
        size = size or (self.side, self.side)
        rows = _pixels(features, size).split(1 << 16)
        return torch.cat([self.probe.predict(part) for part in rows]).view(size)

    def uncertainty(self, features: Tensor) -> Tensor:
        """Return the disagreement of the members of an ``"mlp"``, ``(side, side)``.

        Raises:
            TypeError: If the probe is not an ensemble.
        """
        if not isinstance(self.probe, MLPEnsemble):
            raise TypeError("only the probe 'mlp' has members that can disagree")
        return self.probe.uncertainty(_pixels(features, (self.side, self.side))).view(self.side, self.side)


def slide(
    image: Image.Image, predict: Callable[[Image.Image], Tensor], *, window: int, stride: int | None = None
) -> Tensor:
    """Classify an image in windows, and average where they overlap.

    Args:
        image: The image.
        predict: Function from a part of the image to class probabilities of its pixels, ``(classes, h, w)``.
        window: Pixels per side of a window; parts of smaller images are as large as the image.
        stride: Pixels between windows; the window if ``None``. The last windows end at the borders.

    Returns:
        ``(classes, H, W)``.

    Raises:
        ValueError: If the windows leave gaps.

    Source: arXiv 2410.03558, App. B: windows of 512 pixels for ADE20K; of 1024, every 512, for Cityscapes.
    """
    stride = window if stride is None else stride
    if not 1 <= stride <= window:
        raise ValueError(f"stride must lie between 1 and the window of {window} pixels, got {stride}")
    total: Tensor | None = None
    count = torch.zeros(image.height, image.width)
    for top in _starts(image.height, window, stride):
        for left in _starts(image.width, window, stride):
            bottom, right = min(top + window, image.height), min(left + window, image.width)
            part = predict(image.crop((left, top, right, bottom))).cpu()
            total = part.new_zeros(len(part), *count.shape) if total is None else total
            total[:, top:bottom, left:right] += part
            count[top:bottom, left:right] += 1
    assert total is not None
    return total / count


def _starts(length: int, window: int, stride: int) -> list[int]:
    if length <= window:
        return [0]
    return [*range(0, length - window, stride), length - window]


def resize_mask(mask: NDArray[np.uint8], side: int) -> Tensor:
    """Resize a mask to a square by nearest pixels; ``(side, side)``, int64."""
    values = torch.from_numpy(np.asarray(mask).astype(np.float32))[None, None]
    return F.interpolate(values, (side, side), mode="nearest-exact")[0, 0].long()


def _pixels(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Vectors of all pixels, ``(H * W, C)``."""
    value = F.interpolate(features[None].float(), size, mode="bilinear", align_corners=False)
    return value[0].flatten(1).T


@dataclass(frozen=True, slots=True)
class ScarceScore:
    """Score of the label-scarce protocol.

    Attributes:
        mean: Mean mIoU over the runs.
        deviation: Standard deviation over the runs.
        scores: mIoU of each run.
    """

    mean: float
    deviation: float
    scores: tuple[float, ...]


def label_scarce(
    features: Sequence[Tensor],
    labels: MaskLabels,
    *,
    num_train: int,
    runs: int = 5,
    options: SegmentationOptions | None = None,
    absent: Absent = "zero",
    device: torch.device | str = "cpu",
) -> ScarceScore:
    """Score features by the paper's label-scarce protocol.

    Each run shuffles the images; the first ones are for training, the others for test. Classes with
    fewer than 20 pixels in an image are ignored there. Counts are over all test pixels.

    Args:
        features: ``(C, h, w)`` of each image.
        labels: Masks of the images.
        num_train: Number of training images; 30 of 60 in the paper.
        runs: Number of shuffles.
        options: Probe, size and pixels of learning; the paper's ten MLPs on all pixels if ``None``, which
            needs ``num_train * side ** 2 * C * 4`` bytes.
        absent: Score of a class that is neither in the test images nor predicted; ``"zero"`` as in the
            authors' code.
        device: Device on which MLPs learn.

    Raises:
        ValueError: If numbers do not fit.

    Source: arXiv 2410.03558, App. B (label-scarce segmentation); authors' code.
    """
    count = len(labels.images)
    if len(features) != count or not 0 < num_train < count:
        raise ValueError(
            f"num_train must leave test images of {count} and each image needs features, got {num_train} "
            f"and {len(features)} features"
        )
    options = options or SegmentationOptions(probe="mlp", pixels=0)
    masks = [
        _without_specks(resize_mask(mask, options.side)).numpy().astype(np.uint8) for mask in labels.masks
    ]
    scores: list[float] = []
    for run in range(runs):
        order = np.random.default_rng(run).permutation(count).tolist()
        learn, judge = order[:num_train], order[num_train:]
        segmenter = PixelSegmenter(len(labels.classes), options, seed=run, device=device)
        segmenter.fit([features[i] for i in learn], [masks[i] for i in learn])
        predicted = torch.stack([segmenter.predict(features[i]) for i in judge])
        wanted = torch.stack([torch.from_numpy(masks[i]) for i in judge]).long()
        scores.append(mean_iou(predicted, wanted, len(labels.classes), absent=absent))
    return ScarceScore(fmean(scores), stdev(scores) if runs > 1 else 0.0, tuple(scores))


def _without_specks(mask: Tensor) -> Tensor:
    values, counts = mask.unique(return_counts=True)
    small = values[counts < _LEAST_PIXELS]
    return torch.where(torch.isin(mask, small), IGNORED, mask)
