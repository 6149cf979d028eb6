# SPDX-License-Identifier: Apache-2.0
"""The plain convolutional U-Net that stands beside every SemanIR we train, won or lost."""

from __future__ import annotations

import torch
from semanir.functional import pad_to_multiple
from semanir.modules.blocks import ConvBlock
from torch import Tensor, nn
from torch.nn import functional as F


class ConvUNet(nn.Module):
    """Residual convolution blocks in the same two-level U as the tiny SemanIR.

    Args:
        dims: Channels at half and at quarter resolution.
        num_blocks: Residual blocks of each of the four stages.

    Shape:
        - x and output: ``(B, 3, H, W)``, any size, nominally in [0, 1]
    """

    def __init__(self, dims: tuple[int, int] = (64, 128), num_blocks: tuple[int, ...] = (2, 2, 2, 2)) -> None:
        super().__init__()
        outer, inner = dims

        def stage(dim: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(ConvBlock(dim) for _ in range(count)))

        self.conv_first = nn.Conv2d(12, outer, 3, padding=1)
        self.stage_down, self.stage_bottom = stage(outer, num_blocks[0]), stage(inner, num_blocks[1])
        self.stage_up, self.stage_final = stage(outer, num_blocks[2]), stage(outer, num_blocks[3])
        self.down = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * outer, inner, 1))
        self.up = nn.Sequential(nn.Conv2d(inner, 4 * outer, 1), nn.PixelShuffle(2))
        self.fuse = nn.Conv2d(2 * outer, outer, 1)
        self.tail = nn.Conv2d(outer, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        H, W = x.shape[-2:]
        padded = pad_to_multiple(x, 4)
        skip = self.stage_down(self.conv_first(F.pixel_unshuffle(padded, 2)))
        y = self.up(self.stage_bottom(self.down(skip)))
        y = self.tail(self.stage_final(self.stage_up(self.fuse(torch.cat([y, skip], dim=1)))))
        return (F.pixel_shuffle(y, 2) + padded)[..., :H, :W]
