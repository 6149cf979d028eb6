# SPDX-License-Identifier: Apache-2.0
"""Regions to tokens: what lies under a mask, and where it is (paper, 3.1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["RegionEncoder", "mask_weights", "places", "pool_masks"]


def mask_weights(masks: Tensor, grid: int, mode: Literal["soft", "any"] | str = "soft") -> Tensor:
    """Return how much each patch counts.

    Args:
        masks: ``(R, S, S)``, 0 to 1, of the square that the tower sees.
        grid: Patches along a side.
        mode: ``soft``: the share of the patch that is covered. ``any``: 1 for a patch that is touched, as
            the published code has it.

    Returns:
        ``(R, grid * grid)``.
    """
    covered = F.adaptive_avg_pool2d(masks[:, None].float(), grid).flatten(1)
    return (covered > 0).to(covered.dtype) if mode == "any" else covered


def pool_masks(patches: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of patches; zeros for a mask that covers none.

    Args:
        patches: ``(R, P, C)``.
        weights: ``(R, P)``.

    Returns:
        ``(R, C)``.
    """
    weights = weights.to(patches.dtype)
    total = weights.sum(1, keepdim=True)
    sums = torch.einsum("rp,rpc->rc", weights, patches)
    return torch.where(total > 0, sums / total.clamp(min=1e-8), torch.zeros_like(sums))


def places(masks: Tensor) -> Tensor:
    """Return left, top, right and bottom of masks as fractions of the square, ``(R, 4)``; zeros if empty.

    Args:
        masks: ``(R, S, S)``.
    """
    found = masks > 0
    side = masks.shape[-1]
    steps = torch.arange(side, device=masks.device)
    corners = list[Tensor]()
    for line in (found.any(1), found.any(2)):  # columns, then rows
        low = torch.where(line, steps, side).amin(1)
        high = torch.where(line, steps + 1, 0).amax(1)
        corners.append(torch.stack([low, high], 1))
    (left, right), (top, bottom) = (each.unbind(1) for each in corners)
    box = torch.stack([left, top, right, bottom], 1).float() / side
    return torch.where(found.flatten(1).any(1)[:, None], box, torch.zeros_like(box))


class RegionEncoder(nn.Module):
    """One token for each region: an MLP of the pooled patch features, plus a code of its place.

    Args:
        width: Channels of a patch.
        out: Channels of the language model.
        hidden: Channels between.
        location: Whether to add the code.
        pooling: See :func:`mask_weights`.
    """

    def __init__(
        self, width: int, out: int, *, hidden: int | None = None, location: bool = True, pooling: str = "soft"
    ) -> None:
        super().__init__()
        hidden = hidden or out
        self.pooling = pooling
        self.features = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out), nn.ReLU(), nn.Linear(out, out)
        )
        self.location = (
            nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, out)) if location else None
        )

    def forward(self, patches: Tensor, masks: Tensor) -> Tensor:
        """Encode regions.

        Args:
            patches: Of the frame that each lies on, ``(R, P, C)``.
            masks: ``(R, S, S)``.

        Returns:
            ``(R, out)``.
        """
        grid = int(patches.shape[1] ** 0.5)
        token = self.features(pool_masks(patches, mask_weights(masks, grid, self.pooling)))
        if self.location is not None:
            token = token + self.location(places(masks).to(patches.dtype))
        return token
