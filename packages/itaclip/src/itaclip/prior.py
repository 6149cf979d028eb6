# SPDX-License-Identifier: Apache-2.0
"""What the model itself says of whole windows, as a prior for the patches in them.

A patch cannot see an outline larger than itself, the pooled embedding of a window can. Windows of several
sizes go through the untouched tower; at a place, each counts the more the nearer its middle is.

Source: windows of several sizes classified whole are those of CLIP-DIY, arXiv 2309.14289; that they only
    share out the foreground is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from common_kernels.tiling import TilePlan
from torch import Tensor
from torch.nn import functional as F

from itaclip.config import ITACLIPConfig
from itaclip.encoder import Encoder
from itaclip.inputs import Normalizer
from itaclip.windows import Grid, plan_windows, resized_shape

# of a window
_STRIDE = 1 / 2
# power of the hat by which windows fade towards their edges
_FOCUS = 4

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class View:
    """An image at a size at which the tower's own window is one of ``prior_sides``.

    Attributes:
        image: Normalised, ``(3, h, w)``.
        plan: Its windows.
    """

    image: Tensor
    plan: TilePlan


def make_views(
    pixels: Tensor, encoder: Encoder, normalizer: Normalizer, config: ITACLIPConfig
) -> tuple[View, ...]:
    """Return an image at every size of the prior; none if its weight is 0.

    Args:
        pixels: ``(3, H, W)`` in [0, 1].
        encoder: The image tower.
        normalizer: How images are resized and normalised.
        config: The prior.
    """
    if not config.prior_weight:
        return ()
    height, width = pixels.shape[-2:]
    crop = max(encoder.native_size)
    stride = max(1, round(crop * _STRIDE))
    views: list[View] = []
    for side in config.prior_sides:
        size = resized_shape(height, width, short=round(crop / side), long=config.resize_long)
        image = normalizer(pixels, size, encoder.device)
        views.append(View(image, plan_windows(*size, crop=crop, stride=stride)))
    return tuple(views)


def prior_scores(
    views: tuple[View, ...], plan: TilePlan, grid: Grid, text: Tensor, encoder: Encoder, *, batch_size: int
) -> Tensor:
    """Return the prior at every patch of the windows that the patches are from.

    Args:
        views: Of the image, one at least.
        plan: The windows of the patches.
        grid: Patches of such a window along height and width.
        text: ``(names, D)``, fp32.
        encoder: The image tower.
        batch_size: Windows in one pass of the tower.

    Returns:
        ``(names, rows * height, columns * width)``, fp32: mean over the views, each a mean of the cosines of
        its windows.
    """
    down, across = _centres(plan.rows, plan.height, grid[0]), _centres(plan.columns, plan.width, grid[1])
    total = text.new_zeros((len(text), len(down), len(across)))
    for view in views:
        windows = [view.plan.cut(view.image, box) for box in view.plan]
        found = [
            F.normalize(encoder.pooled(torch.stack(windows[start : start + batch_size])).float(), dim=-1)
            for start in range(0, len(windows), batch_size)
        ]
        scores = (text @ torch.cat(found).T).unflatten(1, (len(view.plan.rows), -1))
        rows = _shares(down, view.plan.rows, view.plan.height).to(scores)
        columns = _shares(across, view.plan.columns, view.plan.width).to(scores)
        total += rows @ scores @ columns.T
    return total / len(views)


def _centres(spans: Spans, length: int, patches: int) -> Tensor:
    """Return where the patches of all spans have their middles, as shares of the length; fp64."""
    steps = (torch.arange(patches, dtype=torch.float64) + 0.5) / patches
    return torch.cat([(start + steps * (stop - start)) / length for start, stop in spans])


def _shares(places: Tensor, spans: Spans, length: int) -> Tensor:
    """Return how much each span counts at each place, ``(places, spans)``, rows that sum to 1."""
    ends = torch.tensor(spans, dtype=torch.float64) / length  # (spans, 2)
    middles, halves = ends.mean(dim=1), (ends[:, 1] - ends[:, 0]) / 2
    hats = (1 - (places[:, None] - middles).abs() / halves).clamp(min=0) ** _FOCUS
    return hats / hats.sum(dim=1, keepdim=True)
