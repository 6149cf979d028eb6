# SPDX-License-Identifier: Apache-2.0
"""Embeddings of whole windows as a prior for the patches in them; an experiment beyond the paper.

A patch cannot see an outline larger than itself, the pooled embedding of a window can. Windows of several
sizes go through the untouched tower; at a patch, each counts the more the nearer its centre is. The names of
the foreground only share out the probability that they have together: a window knows what is in it, but
not where, and otherwise the prior floods the background.

Source: windows of several sizes classified whole are those of CLIP-DIY, arXiv 2309.14289; that they share out
    the foreground only is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from common_kernels.tiling import TilePlan
from itaclip import ITACLIP, ITACLIPConfig
from itaclip.encoder import Encoder, Tower
from itaclip.features import Prepared, WindowEncoder, WindowMaps
from itaclip.inputs import ImageLike, Normalizer, to_tensor
from itaclip.windows import Grid, plan_windows, resized_shape
from torch import Tensor, nn
from torch.nn import functional as F

# share of a window
_STRIDE = 1 / 2
# power of the hat by which windows fade towards their edges
_FOCUS = 4

Spans = tuple[tuple[int, int], ...]
Pool = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """Prior of whole windows.

    Attributes:
        weight: Factor on the cosines of the windows, added to those of the patches.
        sides: Sides of the square windows as shares of the image's short side, in (0, 1].
    """

    weight: float = 4.0
    sides: tuple[float, ...] = (0.4, 0.5, 0.67)


@dataclass(frozen=True, slots=True)
class View:
    """An image at a size at which the tower's own window is one of the prior's sides.

    Attributes:
        image: Normalised, ``(3, h, w)``.
        plan: Its windows.
    """

    image: Tensor
    plan: TilePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedViews(Prepared):
    """An image ready for the windows of its patches and for those of the prior.

    Attributes:
        views: The image at every size of the prior.
    """

    views: tuple[View, ...]


class PriorWindows(WindowEncoder):
    """Prepares images for a prior, too.

    Args:
        encoder: The image tower.
        normalizer: Resizing and normalisation.
        config: Configuration of the patches.
        prior: Configuration of the prior.
    """

    def __init__(self, encoder: Encoder, normalizer: Normalizer, config: ITACLIPConfig, prior: Prior) -> None:
        super().__init__(encoder, normalizer, config)
        self.prior = prior

    def prepare(self, image: ImageLike) -> PreparedViews:
        """Resize, normalise and plan one image, at every size."""
        plain, pixels = super().prepare(image), to_tensor(image)
        crop = max(native_size(self.encoder.tower))
        views: list[View] = []
        for side in self.prior.sides:
            size = resized_shape(*plain.size, short=round(crop / side), long=self.config.resize_long)
            plan = plan_windows(*size, crop=crop, stride=max(1, round(crop * _STRIDE)))
            views.append(View(self.normalizer(pixels, size, self.encoder.device), plan))
        return PreparedViews(plain.image, plain.plan, plain.size, plain.regions, views=tuple(views))


class PriorITACLIP(ITACLIP):
    """Segments with a prior of whole windows.

    Args:
        model: Model, tokenizer and configuration as for :class:`itaclip.ITACLIP`.
        tokenizer: Likewise.
        config: Likewise.
        prior: Configuration of the prior.
        windows: Preparation and encoding of images; a new one if ``None``.
        pool: Embedding of images ``(B, 3, H, W)`` whole, ``(B, D)``; the untouched model if ``None``.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        config: ITACLIPConfig,
        prior: Prior,
        *,
        windows: PriorWindows | None = None,
        pool: Pool | None = None,
    ) -> None:
        super().__init__(model, tokenizer, config)
        self.prior = prior
        self.windows = windows or PriorWindows(self.encoder, self.windows.normalizer, config, prior)
        self.pool = pool or (lambda images: pooled(self.encoder.tower, images))

    def adjust_scores(self, prepared: Prepared, scores: WindowMaps) -> WindowMaps:
        """Add the prior to the scores of the foreground."""
        if not isinstance(prepared, PreparedViews):
            raise TypeError("prepared must come from PriorWindows")
        found = self._prior_scores(prepared, scores.grid)
        foreground = torch.tensor(self.classes.owner) >= int(self.classes.background)
        shared = share_foreground(
            scores.values,
            found,
            foreground.to(found.device),
            weight=self.prior.weight,
            logit_scale=self.config.logit_scale,
        )
        return replace(scores, values=shared)

    def _prior_scores(self, prepared: PreparedViews, grid: Grid) -> Tensor:
        """Return the mean over the views at every patch, ``(names, rows * height, columns * width)``."""
        plan, text = prepared.plan, self.text_features
        down = _centres(plan.rows, plan.height, grid[0])
        across = _centres(plan.columns, plan.width, grid[1])
        total = text.new_zeros((len(text), len(down), len(across)))
        for view in prepared.views:
            windows = torch.stack([view.plan.cut(view.image, box) for box in view.plan])
            found = [F.normalize(self.pool(part).float()) for part in windows.split(self.config.batch_size)]
            cosines = (text @ torch.cat(found).T).unflatten(1, (len(view.plan.rows), -1))
            rows = _shares(down, view.plan.rows, view.plan.height).to(cosines)
            columns = _shares(across, view.plan.columns, view.plan.width).to(cosines)
            total += rows @ cosines @ columns.T
        return total / len(prepared.views)


def native_size(tower: Tower) -> tuple[int, int]:
    """Return the height and width that a tower was trained at, in pixels."""
    (rows, columns), (height, width) = tower.native_grid, tower.patch_size
    return rows * height, columns * width


def pooled(tower: Any, images: Tensor) -> Tensor:
    """Return the model's own embeddings of images, ``(B, D)``, resized to the size it was trained at."""
    size = native_size(tower)
    if tuple(images.shape[-2:]) != size:
        images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
    return tower.visual(images.to(tower.dtype))


def share_foreground(
    scores: Tensor, prior: Tensor, foreground: Tensor, *, weight: float, logit_scale: float
) -> Tensor:
    """Add a prior to the scores of foreground names, without a change of the background.

    The names of the foreground get ``scores + weight * prior`` less what keeps the sum of their exponentials;
    the background keeps its scores.

    Args:
        scores: ``(names, ...)``, not yet scaled.
        prior: Likewise.
        foreground: ``(names,)``, bool, one at least.
        weight: Factor on the prior.
        logit_scale: Factor on the scores before the softmax.

    Returns:
        ``(names, ...)``.
    """
    before = scores[foreground]
    after = before + weight * prior[foreground]
    gain = (after * logit_scale).logsumexp(dim=0) - (before * logit_scale).logsumexp(dim=0)
    shared = scores.clone()
    shared[foreground] = after - gain / logit_scale
    return shared


def _centres(spans: Spans, length: int, patches: int) -> Tensor:
    """Return the centres of the patches of all spans, as shares of the length; fp64."""
    steps = (torch.arange(patches, dtype=torch.float64) + 0.5) / patches
    return torch.cat([(start + steps * (stop - start)) / length for start, stop in spans])


def _shares(places: Tensor, spans: Spans, length: int) -> Tensor:
    """Return how much each span counts at each place, ``(places, spans)``, rows that sum to 1."""
    ends = torch.tensor(spans, dtype=torch.float64) / length  # (spans, 2)
    centres, halves = ends.mean(dim=1), (ends[:, 1] - ends[:, 0]) / 2
    hats = (1 - (places[:, None] - centres).abs() / halves).clamp(min=0) ** _FOCUS
    return hats / hats.sum(dim=1, keepdim=True)
