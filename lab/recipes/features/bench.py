# SPDX-License-Identifier: Apache-2.0
"""Takes every activation of labelled images once, and judges them alone and in sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter
from cyclopts.types import PositiveInt
from cyclopts.validators import Number
from diffeat import ExtractionOptions, FeatureExtractor, Features, Storage
from diffeat.images import load_images
from diffeat.match import pixel_patches
from diffeat.options import RankingOptions
from diffeat.ranking import KeypointLabels, MaskLabels, Ranker

from recipes.features.scenes import SIDE, Kind, draw
from recipes.features.sets import PIXELS

TIMESTEP = 50  # of 1000 training steps: the paper's
AtLeastFour = Annotated[int, Parameter(validator=Number(gte=4))]
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much is measured.

    Attributes:
        images: Number of images that activations are ranked on, for each kind.
        fresh: Number of images that sets are judged on, for each kind and seed.
        seeds: Number of seeds of fresh images.
        pixels: Number of pixels drawn from each image.
        folds: Number of parts of the images; each judges once.
        candidates: Number of best activations that a set is chosen from.
        measured: Number of images on which properties are measured.
        side: Cells per side that features are brought to for points.
        threshold: Largest distance of a hit, in sides.
    """

    images: AtLeastFour = 80
    fresh: AtLeastFour = 80
    seeds: PositiveInt = 5
    pixels: PositiveInt = 80
    folds: int = 4
    candidates: PositiveInt = 8
    measured: int = 16
    side: int = 32
    threshold: float = 0.05

    @property
    def options(self) -> RankingOptions:
        """How activations are judged."""
        return RankingOptions(folds=self.folds, pixels=self.pixels, side=self.side, threshold=self.threshold)


class Bench:
    """A model, and how its activations are judged.

    Args:
        extractor: The model.
        sizes: Numbers of images.
        folder: Folder of the scores, from which a stopped run resumes; ``None`` keeps none.
        draw: Draws labelled images; those of another world than shapeworld have no folder.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        sizes: Sizes,
        folder: Path | None = None,
        draw: Callable[[Kind, int, int], MaskLabels | KeypointLabels] = draw,
    ) -> None:
        self.extractor = extractor
        self.sizes = sizes
        self.folder = folder
        self.draw = draw
        listed = extractor.list_activations(size=SIDE)
        self.every = len(listed)
        spatial = [each for each in listed if each.shape is not None and len(each.shape) == 3]
        self.names = [str(each.name) for each in spatial]
        self.families = {str(each.name): each.family for each in spatial}
        self.shares = {str(each.name): each.flop_share for each in spatial}

    def ranker(self, kind: Kind, seed: int, count: int, names: Sequence[str] | None = None) -> Ranker:
        """A ranker of images that nothing else has seen.

        Args:
            kind: Kind of the labels.
            seed: Random seed of the images.
            count: Number of images.
            names: Activations that are taken; all if ``None``.
        """
        labels = self.draw(kind, seed, count)
        features = self.features(labels, self.names if names is None else list(names))
        folder = None if self.folder is None else self.folder / f"{kind}-{seed}-{count}"
        return Ranker(features, labels, ranking=self.sizes.options, folder=folder)

    def features(self, labels: MaskLabels | KeypointLabels, names: Sequence[str]) -> Features:
        """Activations of all images in half precision, and patches of their pixels."""
        found = self.extractor(
            labels.images,
            [name for name in names if name != PIXELS],
            ExtractionOptions(timesteps=(TIMESTEP,), size=SIDE),
            batch_size=8,
            storage=Storage(dtype=torch.float16),
        )
        return replace(
            found, tensors={**found.tensors, PIXELS: pixel_patches(list(load_images(labels.images))).half()}
        )
