# SPDX-License-Identifier: Apache-2.0
"""Regions to tokens: features under a mask, and its location (paper, 3.1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = [
    "PublishedRegionEncoder",
    "RegionEncoder",
    "make_region_encoder",
    "mask_boxes",
    "mask_weights",
    "pool_masks",
]


def mask_weights(
    masks: Tensor, grid: tuple[int, int], mode: Literal["soft", "any", "sampled"] | str = "soft"
) -> Tensor:
    """Return the weight of each patch.

    Args:
        masks: ``(R, H, W)``, 0 to 1, as the tower sees the image.
        grid: Rows and columns of patches.
        mode: ``soft``: covered share of the patch. ``any``: 1 for a patch that is touched. ``sampled``, as in
            the published code: 1 where bilinear sampling at the patch's centre hits the mask, so that a mask
            thinner than a patch may have no patch.

    Returns:
        ``(R, P)``, row by row.
    """
    if mode == "sampled":
        read = F.interpolate(masks[:, None].float(), size=grid, mode="bilinear").flatten(1)
        return (read > 0).to(read.dtype)
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


def mask_boxes(masks: Tensor) -> Tensor:
    """Return left, top, right and bottom of masks as fractions of the image, ``(R, 4)``; zeros if empty.

    Args:
        masks: ``(R, H, W)``.
    """
    found = masks > 0
    corners = list[Tensor]()
    for line in (found.any(1), found.any(2)):  # columns, then rows
        side = line.shape[1]
        steps = torch.arange(side, device=masks.device)
        low = torch.where(line, steps, side).amin(1)
        high = torch.where(line, steps + 1, 0).amax(1)
        corners.append(torch.stack([low, high], 1).float() / side)
    (left, right), (top, bottom) = (each.unbind(1) for each in corners)
    box = torch.stack([left, top, right, bottom], 1)
    return torch.where(found.flatten(1).any(1)[:, None], box, torch.zeros_like(box))


class RegionEncoder(nn.Module):
    """One token for each region: an MLP of the pooled patch features, plus a code of its location.

    Args:
        width: Channels of a patch.
        out: Channels of the language model.
        hidden: Hidden channels.
        location: Whether to add the code of the location.
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

    def forward(self, maps: Tensor, masks: Tensor) -> Tensor:
        """Encode regions.

        Args:
            maps: Features of the frame of each region, ``(R, h, w, C)``.
            masks: ``(R, H, W)``, 0 to 1, as the tower sees the image.

        Returns:
            ``(R, out)``.
        """
        weights = mask_weights(masks, (maps.shape[1], maps.shape[2]), self.pooling)
        token = self.features(pool_masks(maps.flatten(1, 2), weights))
        if self.location is not None:
            token = token + self.location(mask_boxes(masks).to(maps.dtype))
        return token


class PublishedRegionEncoder(nn.Module):
    """The region encoder of the authors' release, for weights in its form.

    It differs from :class:`RegionEncoder` in four ways: masks are read at the centres of patches
    (``sampled``), the mask of a box covers its corners truncated to pixels, boxes are in pixels of the
    tower's square rather than fractions of it, and their MLP is half as wide. The release also fills its
    masks with rows and columns exchanged, so that it pools a box mirrored about the diagonal; weights
    trained that way need ``mirrored``.

    Args:
        width: Channels of a patch.
        out: Channels of the language model and of the hidden layers.
        mirrored: Whether masks are mirrored about the diagonal before they are pooled.
    """

    def __init__(self, width: int, out: int, *, mirrored: bool = False) -> None:
        super().__init__()
        self.mirrored = mirrored
        self.features = nn.Sequential(
            nn.Linear(width, out), nn.ReLU(), nn.Linear(out, out), nn.ReLU(), nn.Linear(out, out)
        )
        self.location = nn.Sequential(nn.Linear(4, out // 2), nn.ReLU(), nn.Linear(out // 2, out))

    def forward(self, maps: Tensor, masks: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Encode regions.

        Args:
            maps: Features of the frame of each region, ``(R, h, w, C)``.
            masks: ``(R, H, W)``, 0 to 1, as the tower sees the image.
            boxes: Left, top, right and bottom as fractions of the image, ``(R, 4)``, instead of the mask;
                NaN, or nothing at all, for the mask and the box around it.

        Returns:
            ``(R, out)``.
        """
        height, width = masks.shape[-2:]
        pixels = _boxes(masks, boxes) * torch.tensor([width, height, width, height], device=masks.device)
        masks = (
            masks if boxes is None else torch.where(boxes.isnan()[:, :1, None], masks, _filled(pixels, masks))
        )
        seen = masks.mT if self.mirrored else masks
        weights = mask_weights(seen, (maps.shape[1], maps.shape[2]), "sampled")
        token = self.features(pool_masks(maps.flatten(1, 2), weights))
        return token + self.location(pixels.to(maps.dtype))


def _boxes(masks: Tensor, boxes: Tensor | None) -> Tensor:
    """Return the given boxes, whose corners may lie inside pixels, and else those around the masks."""
    around = mask_boxes(masks)
    if boxes is None:
        return around
    given = boxes.to(around)
    return torch.where(given.isnan(), around, given)


def _filled(boxes: Tensor, masks: Tensor) -> Tensor:
    """Return the masks of boxes in pixels, ``(R, 4)``, whose corners are truncated, like other masks."""
    left, top, right, bottom = (boxes + 1e-3).long()[..., None].unbind(1)  # whole numbers may be a bit less
    rows, columns = (torch.arange(side, device=masks.device) for side in masks.shape[-2:])
    inside_rows, inside_columns = (top <= rows) & (rows < bottom), (left <= columns) & (columns < right)
    return (inside_rows[:, :, None] & inside_columns[:, None]).to(masks)


def make_region_encoder(
    form: str, width: int, out: int, *, location: bool = True, pooling: str = "soft"
) -> RegionEncoder | PublishedRegionEncoder:
    """Return the region encoder of a configuration.

    Args:
        form: ``vitron``, ``published`` or ``published-mirrored``.
        width: Channels of a patch.
        out: Channels of the language model.
        location: Whether the form ``vitron`` adds the code of the location.
        pooling: Patch weights of the form ``vitron``; see :func:`mask_weights`.

    Raises:
        ValueError: If the form is unknown.
    """
    if form == "vitron":
        return RegionEncoder(width, out, location=location, pooling=pooling)
    if form in ("published", "published-mirrored"):
        return PublishedRegionEncoder(width, out, mirrored=form == "published-mirrored")
    raise ValueError(f"region_form must be vitron, published or published-mirrored, got {form!r}")
