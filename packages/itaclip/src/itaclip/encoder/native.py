# SPDX-License-Identifier: Apache-2.0
"""open_clip's own vision transformer."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import Attention, CustomResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from itaclip.encoder.tower import Grid, Tower, join_heads, split_heads


class NativeTower(Tower):
    """Steps of an :class:`open_clip.transformer.VisionTransformer`.

    Args:
        visual: The tower, in evaluation mode.

    Raises:
        NotImplementedError: If the tower pools by cross-attention (CoCa) or scales cosines.
    """

    num_prefix = 1

    def __init__(self, visual: VisionTransformer) -> None:
        super().__init__()
        if visual.attn_pool is not None:
            raise NotImplementedError(
                "image towers with an attentional pooler (CoCa) have no token in text space"
            )
        self.visual: Any = visual
        self.blocks: Any = visual.transformer.resblocks
        for block in self.blocks:
            if getattr(block.attn, "scaled_cosine", False):
                raise NotImplementedError("image towers with scaled cosine attention are not supported")
        self.num_blocks = len(self.blocks)
        self.patch_size = tuple(self.visual.patch_size)
        self.native_grid = tuple(self.visual.grid_size)

    @property
    def patch_conv(self) -> nn.Conv2d:
        """Convolution that turns patches into tokens."""
        return self.visual.conv1

    @property
    def position_table(self) -> Tensor:
        """Learnt positions, the class token first."""
        return self.visual.positional_embedding

    def assemble(self, patches: Tensor, positions: Tensor | None) -> Tensor:
        """Add positions and prefix tokens and normalise."""
        first = self.visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        x = torch.cat([first, patches], dim=1)  # (B, N, C)
        if positions is not None:
            x = x + positions.to(x.dtype)
        return self.visual.ln_pre(x)

    def qkv(self, block: int, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of a block's input."""
        layer = self.blocks[block]
        attn = layer.attn
        joint = F.linear(self.normed(block, x), attn.in_proj_weight, attn.in_proj_bias)
        q, k, v = (split_heads(part, attn.num_heads) for part in joint.chunk(3, dim=-1))
        if isinstance(attn, Attention):
            q, k = attn.ln_q(q), attn.ln_k(k)
        return q, k, v

    def normed(self, block: int, x: Tensor) -> Tensor:
        """Return the normalised input of a block's attention."""
        return self.blocks[block].ln_1(x)

    def scale(self, block: int) -> float:
        """Return the factor on the attention logits of a block."""
        return self.blocks[block].attn.head_dim ** -0.5

    def project(self, block: int, y: Tensor, x: Tensor) -> Tensor:
        """Turn attended values into the block's attention branch."""
        layer = self.blocks[block]
        attn = layer.attn
        custom = isinstance(attn, Attention)
        if custom and attn.head_scale is not None:
            y = y * attn.head_scale
        joined = join_heads(y)
        branch = attn.out_proj(attn.ln_inner(joined) if custom else joined)
        if isinstance(layer, CustomResidualAttentionBlock):
            branch = layer.ln_attn(branch)
        return layer.ls_1(branch)

    def feed_forward(self, block: int, x: Tensor) -> Tensor:
        """Return the feed-forward branch of a block."""
        layer = self.blocks[block]
        return layer.ls_2(layer.mlp(layer.ln_2(x)))

    def to_text_space(self, x: Tensor) -> Tensor:
        """Project every token as the pooled token is projected."""
        y = self.visual.ln_post(x)
        return y if self.visual.proj is None else y @ self.visual.proj
