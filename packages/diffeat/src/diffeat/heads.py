# SPDX-License-Identifier: Apache-2.0
"""Small trained heads on frozen features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AggregationHead(nn.Module):
    """One 3x3 convolution without bias that makes concatenated features fit for correspondence.

    Args:
        in_channels: Channels of the features.
        out_channels: Channels of the result; those of the features if ``None``. The authors halve them for
            features of several models.

    Shape:
        - x: ``(B, C, h, w)``
        - output: ``(B, out_channels, h, w)``

    Source: authors' code. Its size grows with the square of the channels, so figures of selections with
    different channels also compare heads of different size.
    """

    def __init__(self, in_channels: int, out_channels: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels or in_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.conv(x)


class UPerHead(nn.Module):
    """A light head for segmentation: pyramid pooling on the coarsest level, then merging to the finest.

    Args:
        in_channels: Channels of each level, coarsest first.
        num_classes: Classes.
        channels: Width inside.
        pool_scales: Sides that the coarsest level is pooled to.
        dropout: Before the classifier.

    Shape:
        - levels: ``(B, C_i, h_i, w_i)``, coarsest first
        - output: ``(B, num_classes, h, w)`` at the finest level's size

    Source: after unified perceptual parsing, arXiv 1807.10221, Sec. 3.2, with single convolutions and group
    normalisation, which works with a batch of one.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        *,
        channels: int = 128,
        pool_scales: Sequence[int] = (1, 2, 3),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if not in_channels:
            raise ValueError("in_channels must name at least one level, got none")
        self.pool_scales = tuple(pool_scales)
        self.pooled = nn.ModuleList(_block(in_channels[0], channels, 1) for _ in pool_scales)
        self.bottom = _block(in_channels[0] + channels * len(self.pool_scales), channels, 3)
        self.lateral = nn.ModuleList(_block(each, channels, 1) for each in in_channels[1:])
        self.smooth = nn.ModuleList(_block(channels, channels, 3) for _ in in_channels[1:])
        self.fuse = _block(channels * len(in_channels), channels, 3)
        self.classify = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(channels, num_classes, 1))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:  # noqa: D102
        coarse = levels[0]
        size = coarse.shape[-2:]
        context = [coarse]
        for scale, layer in zip(self.pool_scales, self.pooled, strict=True):
            context.append(_resize(layer(F.adaptive_avg_pool2d(coarse, scale)), size))
        merged = [self.bottom(torch.cat(context, dim=1))]
        for level, lateral in zip(levels[1:], self.lateral, strict=True):
            merged.append(lateral(level) + _resize(merged[-1], level.shape[-2:]))
        outputs = [merged[0], *(layer(x) for layer, x in zip(self.smooth, merged[1:], strict=True))]
        finest = levels[-1].shape[-2:]
        return self.classify(self.fuse(torch.cat([_resize(each, finest) for each in outputs], dim=1)))


def levels_of(features: Mapping[str, Tensor]) -> list[Tensor]:
    """Group features by size, coarsest first, and concatenate each group along the channels.

    Args:
        features: ``(B, C, h, w)`` by name.

    Raises:
        ValueError: If a feature is something else.
    """
    groups: dict[tuple[int, int], list[Tensor]] = {}
    for name, value in features.items():
        if value.ndim != 4:
            raise ValueError(f"{name} must be (batch, channels, height, width), got {tuple(value.shape)}")
        groups.setdefault((value.shape[2], value.shape[3]), []).append(value.float())
    return [torch.cat(groups[size], dim=1) for size in sorted(groups)]


def _block(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    groups = next(number for number in (8, 4, 2, 1) if out_channels % number == 0)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
        nn.GroupNorm(groups, out_channels),
        nn.ReLU(),
    )


def _resize(x: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)
