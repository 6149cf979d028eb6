# SPDX-License-Identifier: Apache-2.0
"""Result of a segmentation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


class Mask(TypedDict):
    """Mask of one class.

    Attributes:
        mask: ``(H, W)``, bool.
        label: Display name of the class.
        score: Mean probability of the class over these pixels, in [0, 1].
    """

    mask: NDArray[np.bool_]
    label: str
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """Segmentation of one image: a class for every pixel.

    Attributes:
        labels: ``(H, W)``, int64, on the CPU: positions in ``names``.
        probabilities: ``(H, W)``, fp32, on the CPU: the best probability of each pixel among the classes
            that the area rule left, in [0, 1], before the probability rule and the closing.
        names: Display names of the classes, the background first if there is one.
        background: Whether class 0 is the background.
        scores: ``(classes, H, W)``, fp32, on the CPU: the probability of each class, before any rule;
            ``None`` unless asked for. They add up to 1 or, where a class has several names, to less.
    """

    labels: Tensor
    probabilities: Tensor
    names: tuple[str, ...]
    background: bool = False
    scores: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.labels.shape[0], self.labels.shape[1]

    def resized(self, size: tuple[int, int]) -> Segmentation:
        """Return the segmentation at another size: nearest labels, bilinear probabilities.

        Args:
            size: Height and width in pixels.
        """
        if self.size == size:
            return self
        labels = F.interpolate(self.labels[None, None].double(), size, mode="nearest-exact")
        probabilities = F.interpolate(self.probabilities[None, None], size, mode="bilinear")
        scores = None if self.scores is None else F.interpolate(self.scores[None], size, mode="bilinear")[0]
        return replace(self, labels=labels[0, 0].long(), probabilities=probabilities[0, 0], scores=scores)

    def by_regions(self, regions: Tensor) -> Segmentation:
        """Return the segmentation with one class for each region, the commonest of its pixels.

        Args:
            regions: Number of the region of every pixel, ``(H, W)``, 0 for none, whose labels stay.
        """
        places = regions.to(self.labels) * len(self.names) + self.labels
        counts = places.flatten().bincount(minlength=(int(regions.max()) + 1) * len(self.names))
        best = counts.unflatten(0, (-1, len(self.names))).argmax(dim=1)
        return replace(self, labels=torch.where(regions.to(self.labels) > 0, best[regions], self.labels))

    def shares(self) -> dict[str, float]:
        """Return the share of the pixels of every class that occurs, largest first."""
        counts = self.labels.flatten().bincount(minlength=len(self.names)) / self.labels.numel()
        shares = {name: float(count) for name, count in zip(self.names, counts, strict=True) if count > 0}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    def masks(self, *, background: bool = False) -> list[Mask]:
        """Return one mask per class that occurs, in the order of the classes, as image pipelines do.

        Args:
            background: Whether the background class is among them.
        """
        first = 1 if self.background and not background else 0
        found: list[Mask] = []
        for number in self.labels.unique().tolist():
            if number < first:
                continue
            mask = self.labels == number
            score = float(self.probabilities[mask].mean())
            found.append(Mask(mask=mask.numpy(), label=self.names[number], score=score))
        return found
