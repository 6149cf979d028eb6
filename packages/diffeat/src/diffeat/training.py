# SPDX-License-Identifier: Apache-2.0
"""Training of heads on Lightning; the only file of the package that imports it (extra ``train``)."""

from __future__ import annotations

from collections.abc import Mapping

try:
    import pytorch_lightning as pl
except ImportError as error:  # pragma: no cover - the test environment has the extra
    raise ImportError("diffeat.training needs the extra 'train': pip install 'diffeat[train]'") from error

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torchmetrics.classification import MulticlassJaccardIndex

from diffeat.heads import levels_of

Points = tuple[Tensor, Tensor, Tensor, Tensor]


class SegmentationModule(pl.LightningModule):
    """Trains a segmentation head on stored features.

    Batches are pairs of features by name, ``(B, C, h, w)`` each, and class numbers ``(B, H, W)``, as
    :class:`~diffeat.store.FeatureDataset` gives them with masks as targets. Features are grouped by size.
    Validation logs ``val/miou``; a class that is neither there nor predicted is left out of it.

    Args:
        head: Takes levels, coarsest first, such as :class:`~diffeat.heads.UPerHead`.
        num_classes: Classes.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        ignore_index: Pixels that do not count.

    Source: arXiv 2410.03558, App. B, for the optimiser; the head is lighter than the paper's.
    """

    def __init__(
        self,
        head: nn.Module,
        num_classes: int,
        *,
        learning_rate: float = 1.6e-4,
        weight_decay: float = 1e-3,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        self.head = head
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.ignore_index = ignore_index
        self.miou = MulticlassJaccardIndex(num_classes, ignore_index=ignore_index, validate_args=False)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Scores ``(B, classes, h, w)`` at the finest level's size."""
        return self.head(levels_of(features))

    def _scores(self, features: Mapping[str, Tensor], masks: Tensor) -> Tensor:
        return F.interpolate(self(features), masks.shape[-2:], mode="bilinear", align_corners=False)

    def training_step(self, batch: tuple[Mapping[str, Tensor], Tensor], batch_idx: int) -> Tensor:  # noqa: D102
        features, masks = batch
        loss = F.cross_entropy(self._scores(features, masks), masks.long(), ignore_index=self.ignore_index)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(masks))
        return loss

    def validation_step(self, batch: tuple[Mapping[str, Tensor], Tensor], batch_idx: int) -> None:  # noqa: D102
        features, masks = batch
        self.miou(self._scores(features, masks).argmax(dim=1), masks.long())
        self.log("val/miou", self.miou, prog_bar=True, on_epoch=True, batch_size=len(masks))

    def configure_optimizers(self) -> Optimizer:  # noqa: D102
        return torch.optim.AdamW(
            self.head.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )


class CorrespondenceModule(pl.LightningModule):
    """Trains a head so that corresponding points have the most similar features.

    A batch is one pair: features of both images, ``(C, h, w)`` or ``(1, C, h, w)``, and their points
    ``(N, 2)`` as ``(x, y)`` in shares of width and height. Each point has to pick its cell among all cells of
    the other image; both directions count alike.

    Args:
        head: Such as :class:`~diffeat.heads.AggregationHead`.
        side: Cells that features are brought to.
        temperature: Divides the cosines; fixed.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.

    Source: authors' code: 128 cells, temperature 0.07, AdamW at 5e-4 with decay 0.01, one pair per step.
    """

    def __init__(
        self,
        head: nn.Module,
        *,
        side: int = 128,
        temperature: float = 0.07,
        learning_rate: float = 5e-4,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__()
        self.head = head
        self.side = side
        self.temperature = temperature
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay

    def loss(self, batch: Points) -> Tensor:
        """Mean cross entropy of both directions."""
        source, target, source_points, target_points = batch
        one, other = self._cells(source), self._cells(target)
        start, end = self._index(source_points), self._index(target_points)
        there = F.cross_entropy(one[start] @ other.T / self.temperature, end)
        back = F.cross_entropy(other[end] @ one.T / self.temperature, start)
        return (there + back) / 2

    def _cells(self, features: Tensor) -> Tensor:
        """Unit vectors of all cells after the head, ``(side * side, C)``."""
        size = (self.side, self.side)
        grid = F.interpolate(
            features.float().view(1, *features.shape[-3:]), size, mode="bilinear", align_corners=False
        )
        return F.normalize(self.head(grid)[0].flatten(1).T, dim=-1)

    def _index(self, points: Tensor) -> Tensor:
        cells = (points.reshape(-1, 2) * self.side).long().clamp(0, self.side - 1)
        return cells[:, 1] * self.side + cells[:, 0]

    def training_step(self, batch: Points, batch_idx: int) -> Tensor:  # noqa: D102
        loss = self.loss(batch)
        self.log("train/loss", loss, prog_bar=True, batch_size=1)
        return loss

    def configure_optimizers(self) -> Optimizer:  # noqa: D102
        return torch.optim.AdamW(
            self.head.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
