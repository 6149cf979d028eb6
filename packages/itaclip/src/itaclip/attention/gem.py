# SPDX-License-Identifier: Apache-2.0
"""GEM: self-self attention along the last blocks, beside the tower's own stream."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from itaclip.encoder.driver import AttentionStrategy, BlockInput, Encoder, LastInput


@dataclass(frozen=True, kw_only=True)
class GEMAttention(AttentionStrategy):
    """Self-self attention of queries, keys and values, added up over the last blocks; strategy ``"gem"``.

    A second stream starts at the input of the first of these blocks and collects their self-self attention;
    it has no feed-forward halves. The tower's own stream stays as it is.

    Args:
        blocks: Number of blocks at the end of the tower.
        iterations: Times that queries, keys and values are averaged by their own map before the map that
            weights the values.

    Raises:
        ValueError: If a number is below 1.

    Source: GEM, arXiv 2312.00878, and its published code, whose depth of 7 means the last 6 blocks.
    """

    blocks: int = 6
    iterations: int = 1

    def __post_init__(self) -> None:
        if self.blocks < 1 or self.iterations < 0:
            raise ValueError(
                "blocks must be at least 1 and iterations at least 0, "
                f"got {self.blocks} and {self.iterations}"
            )

    def layers(self, num_blocks: int) -> tuple[int, ...]:
        """Return the blocks of the second stream, but for the last."""
        if self.blocks > num_blocks:
            raise ValueError(f"blocks must be at most the {num_blocks} of the tower, got {self.blocks}")
        return tuple(range(num_blocks - self.blocks + 1, num_blocks))

    def features(self, last: LastInput, encoder: Encoder) -> Tensor:
        """Return the feature of every patch, ``(B, D, height, width)``."""
        tower = encoder.tower
        inputs = (*last.earlier, last)
        x = inputs[0].x
        for number, block in enumerate(inputs, start=tower.num_blocks - len(inputs)):
            y = self.attend(block, tower.normed(number, block.x))
            x = x + tower.project(number, y, block.x)
        return encoder.to_maps(tower.to_text_space(x), last.grid)

    def attend(self, block: BlockInput, normed: Tensor) -> Tensor:
        """Return the attended values of a block, ``(B, heads, N, head_dim)``.

        Args:
            block: Its input.
            normed: Its normalised input ``(B, N, C)``, whose mean length sets the temperature of an image.
        """
        scale = normed.norm(dim=-1).mean(dim=-1)[:, None, None, None] * block.scale  # (B, 1, 1, 1)
        values = block.qkv[2]
        return torch.stack([self._spread(x, values, scale) for x in block.qkv]).mean(dim=0)

    def _spread(self, x: Tensor, values: Tensor, scale: Tensor) -> Tensor:
        for _ in range(self.iterations):
            unit = F.normalize(x, dim=-1)
            x = F.scaled_dot_product_attention(unit * scale, unit, unit, scale=1.0)
        unit = F.normalize(x, dim=-1)
        return F.scaled_dot_product_attention(unit * scale, unit, values, scale=1.0)
