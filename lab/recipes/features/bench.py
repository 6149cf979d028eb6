# SPDX-License-Identifier: Apache-2.0
"""Takes every activation of labelled pictures once, and judges them alone and in sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffeat import FeatureExtractor, Features, Storage
from diffeat.images import load_images
from diffeat.match import pixel_patches
from diffeat.ranking import KeypointLabels, MaskLabels, Ranker, Setup

from recipes.features.scenes import SIDE, Kind, draw
from recipes.features.sets import PIXELS

T = 50  # of 1000 training steps: the paper's
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured.

    Attributes:
        pictures: That activations are ranked on, for each kind.
        fresh: That sets are judged on, for each kind and seed.
        seeds: Of fresh pictures.
        pixels: Drawn from each picture.
        folds: Parts of the pictures; each judges once.
        candidates: Best activations that a set is chosen from.
        looked_at: Pictures on which properties are measured.
        side: Cells that features are brought to for points.
        threshold: Largest distance of a hit, in sides.
    """

    pictures: int = 100
    fresh: int = 100
    seeds: int = 5
    pixels: int = 100
    folds: int = 4
    candidates: int = 10
    looked_at: int = 16
    side: int = 32
    threshold: float = 0.05

    @property
    def setup(self) -> Setup:
        """How activations are judged."""
        return Setup(folds=self.folds, pixels=self.pixels, side=self.side, threshold=self.threshold)


class Bench:
    """A model, and how its activations are judged.

    Args:
        extractor: The model.
        sizes: How much.
        folder: Where scores are kept; a run that was cut goes on from them. Nowhere if ``None``.
    """

    def __init__(self, extractor: FeatureExtractor, sizes: Sizes, folder: Path | None = None) -> None:
        self.extractor = extractor
        self.sizes = sizes
        self.folder = folder
        listed = extractor.list_activations(size=SIDE)
        self.every = len(listed)
        spatial = [each for each in listed if each.shape is not None and len(each.shape) == 3]
        self.names = [str(each.name) for each in spatial]
        self.families = {str(each.name): each.family for each in spatial}
        self.shares = {str(each.name): each.flop_share for each in spatial}

    def ranker(self, kind: Kind, seed: int, count: int, names: Sequence[str] | None = None) -> Ranker:
        """A ranker of pictures that nothing else has seen.

        Args:
            kind: Of the labels.
            seed: Of the pictures.
            count: Pictures.
            names: Activations that are taken; all if ``None``.
        """
        labels = draw(kind, seed, count)
        features = self.features(labels, self.names if names is None else list(names))
        folder = None if self.folder is None else self.folder / f"{kind}-{seed}-{count}"
        return Ranker(features, labels, setup=self.sizes.setup, folder=folder)

    def features(self, labels: MaskLabels | KeypointLabels, names: Sequence[str]) -> Features:
        """Activations of all pictures in half precision, and patches of their pixels."""
        found = self.extractor(
            labels.images,
            [name for name in names if name != PIXELS],
            t=T,
            size=SIDE,
            batch_size=8,
            storage=Storage(dtype=torch.float16),
        )
        return replace(
            found, tensors={**found.tensors, PIXELS: pixel_patches(load_images(labels.images)).half()}
        )
