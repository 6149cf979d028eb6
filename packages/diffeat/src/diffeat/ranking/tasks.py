# SPDX-License-Identifier: Apache-2.0
"""Scores of features on labelled images, one fold of images held out at a time."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from diffeat.match import hits, nearest, sample
from diffeat.options import RankingOptions
from diffeat.ranking.labels import IGNORED, KeypointLabels, MaskLabels
from diffeat.ranking.probes import make_probe
from diffeat.scores import mean_iou


class Task(Protocol):
    """Labels, and the score of features of their images."""

    metric: str

    @property
    def num_images(self) -> int:
        """Labelled images."""
        ...

    @property
    def cells(self) -> int:
        """Number of vectors kept of an image."""
        ...

    @property
    def key(self) -> dict[str, Any]:
        """Settings that scores depend on, as JSON values."""
        ...

    def reduce(self, values: Tensor, first: int) -> Tensor:
        """Reduce ``(B, C, h, w)`` to the needed part: ``(B, C, ...)``, the first being image ``first``."""
        ...

    def score(self, features: Tensor, fold: int) -> float:
        """Return the score of ``(images, C, ...)`` on the images of a fold, in [0, 1]."""
        ...


def split_folds(num_images: int, folds: int, seed: int) -> list[list[int]]:
    """Return the images of each fold, drawn independently of labels.

    Raises:
        ValueError: If there are more folds than images.
    """
    if folds > num_images:
        raise ValueError(
            f"folds must be at most the number of images, {num_images} here, got {folds}: "
            "take fewer, or add images"
        )
    order = np.random.default_rng(seed).permutation(num_images)
    return [sorted(part.tolist()) for part in np.array_split(order, folds)]


def _key(task: MaskTask | KeypointTask) -> dict[str, Any]:
    return {
        "labels": task.labels.digest(),
        "metric": task.metric,
        "seed": task.seed,
        **asdict(task.options),
    }


class MaskTask:
    """Segmentation by a probe on single pixels.

    Args:
        labels: Images and masks.
        options: Options of the scores.
        seed: Random seed of folds, pixels and weights.
        device: Device on which MLPs learn.

    Pixels are drawn evenly over each image at the masks' own resolution, and features are read there
    bilinearly, which equals enlarging them to that resolution first.
    """

    metric = "mIoU"

    def __init__(
        self,
        labels: MaskLabels,
        options: RankingOptions,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.labels = labels
        self.options = options
        self.seed = seed
        self.device = device
        self.folds = split_folds(len(labels.images), options.folds, seed)
        places = [self._draw(index) for index in range(len(labels.images))]
        self._points = torch.stack([points for points, _ in places])  # (images, P, 2)
        self._classes = torch.stack([classes for _, classes in places])  # (images, P)

    def _draw(self, index: int) -> tuple[Tensor, Tensor]:
        mask = np.asarray(self.labels.masks[index])
        rows, columns = np.nonzero(mask != IGNORED)
        count = self.options.pixels
        if not len(rows):
            return torch.full((count, 2), 0.5), torch.full((count,), IGNORED)
        rng = np.random.default_rng([self.seed, index])
        chosen = rng.choice(len(rows), size=count, replace=len(rows) < count)
        y, x = rows[chosen], columns[chosen]
        points = np.stack([(x + 0.5) / mask.shape[1], (y + 0.5) / mask.shape[0]], axis=-1)
        return torch.from_numpy(points).float(), torch.from_numpy(mask[y, x].astype(np.int64))

    @property
    def num_images(self) -> int:
        """Labelled images."""
        return len(self.labels.images)

    @property
    def cells(self) -> int:
        """Number of vectors kept of an image."""
        return self.options.pixels

    @property
    def key(self) -> dict[str, Any]:
        """Settings that scores depend on, as JSON values."""
        return _key(self)

    def reduce(self, values: Tensor, first: int) -> Tensor:
        """Read ``(B, C, h, w)`` at the drawn pixels: ``(B, C, P)``."""
        return sample(values, self._points[first : first + len(values)]).transpose(1, 2)

    def score(self, features: Tensor, fold: int) -> float:
        """Return the mIoU of a probe on the images of a fold, trained on all others."""
        held = self.folds[fold]
        rest = [index for index in range(self.num_images) if index not in set(held)]
        vectors, classes = features[rest].transpose(1, 2).flatten(0, 1), self._classes[rest].flatten()
        known = classes != IGNORED
        number = len(self.labels.classes)
        probe = make_probe(self.options.probe, number, seed=self.seed, device=self.device)
        probe.fit(vectors[known], classes[known])
        predicted = probe.predict(features[held].transpose(1, 2).flatten(0, 1))
        return mean_iou(predicted, self._classes[held].flatten(), number, absent=self.options.absent)


class KeypointTask:
    """Correspondence by nearest neighbours: nothing is learned.

    Every point of every image is searched in each image of the fold that also has it.

    Args:
        labels: Images and points.
        options: Options of the scores.
        seed: Random seed of the folds.
    """

    metric = "PCK"

    def __init__(self, labels: KeypointLabels, options: RankingOptions, *, seed: int = 0) -> None:
        self.labels = labels
        self.options = options
        self.seed = seed
        self.folds = split_folds(len(labels.images), options.folds, seed)
        self._sizes = [labels.size(index) for index in range(len(labels.images))]

    @property
    def num_images(self) -> int:
        """Labelled images."""
        return len(self.labels.images)

    @property
    def cells(self) -> int:
        """Number of vectors kept of an image."""
        return self.options.side**2

    @property
    def key(self) -> dict[str, Any]:
        """Settings that scores depend on, as JSON values."""
        return _key(self)

    def reduce(self, values: Tensor, first: int) -> Tensor:
        """Resize ``(B, C, h, w)`` to one grid, ``(B, C, side, side)``."""
        side = (self.options.side, self.options.side)
        return F.interpolate(values.float(), side, mode="bilinear", align_corners=False).to(values.dtype)

    def score(self, features: Tensor, fold: int) -> float:
        """Share of points found in the images of a fold; 0 if no two of them share a point."""
        found = total = 0
        for target in self.folds[fold]:
            height, width = self._sizes[target]
            scale = torch.tensor([width, height])
            for source, points in enumerate(self.labels.points):
                shared = [name for name in points if name in self.labels.points[target]]
                if source == target or not shared:
                    continue
                size = self._sizes[source]
                start = torch.tensor([points[name] for name in shared]) / torch.tensor([size[1], size[0]])
                wanted = torch.tensor([self.labels.points[target][name] for name in shared])
                predicted, _ = nearest(features[source].float(), features[target].float(), start)
                right = hits(predicted * scale, wanted, self.options.threshold * max(height, width))
                found, total = found + int(right.sum()), total + len(shared)
        return found / total if total else 0.0
