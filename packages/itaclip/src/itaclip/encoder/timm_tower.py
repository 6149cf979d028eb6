# SPDX-License-Identifier: Apache-2.0
"""Vision transformers of timm inside open_clip: SigLIP, EVA and Perception Encoder."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from timm.layers.attention import Attention, AttentionRope
from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from itaclip.encoder.tower import Grid, Tower, join_heads, split_heads


class TimmTower(Tower):
    """Steps of a timm ``VisionTransformer`` or ``Eva`` trunk and of open_clip's head on top.

    Args:
        visual: open_clip's ``TimmModel``, in evaluation mode.

    Raises:
        NotImplementedError: If the trunk is of another kind, or its blocks do not norm first.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        trunk: Any = visual.trunk
        if not isinstance(trunk, VisionTransformer | Eva):
            raise NotImplementedError(
                f"image towers of timm must be a VisionTransformer or an Eva, got {type(trunk).__name__}"
            )
        for block in trunk.blocks:
            if type(block) not in (Block, EvaBlock):
                raise NotImplementedError(
                    f"blocks of {type(block).__name__} do not norm first; not supported"
                )
            if not isinstance(block.attn, Attention | AttentionRope | EvaAttention):
                raise NotImplementedError(f"attention of {type(block.attn).__name__} is not supported")
        if getattr(trunk, "rope_mixed", False):
            raise NotImplementedError("image towers whose rotary positions differ by block are not supported")
        pool = getattr(trunk, "attn_pool", None)
        if pool is not None and (not isinstance(pool, AttentionPoolLatent) or pool.pos_embed is not None):
            raise NotImplementedError("only attention pools without positions of their own are supported")
        self.visual: Any = visual
        self.trunk: Any = trunk
        self.num_blocks = len(trunk.blocks)
        self.num_prefix = trunk.num_prefix_tokens
        self.patch_size = tuple(self.trunk.patch_embed.patch_size)
        self.native_grid = tuple(self.trunk.patch_embed.grid_size)
        # a copy, since asking for another grid changes the module
        self._rope: Any = deepcopy(getattr(trunk, "rope", None))
        self._turns: dict[Grid, Tensor] = {}

    @property
    def patch_conv(self) -> nn.Conv2d:
        """Convolution that turns patches into tokens."""
        return self.trunk.patch_embed.proj

    @property
    def position_table(self) -> Tensor | None:
        """Learnt positions, if there are any."""
        return None if self.trunk.pos_embed is None else self.trunk.pos_embed[0]

    def assemble(self, patches: Tensor, positions: Tensor | None) -> Tensor:
        """Add positions and prefix tokens and normalise."""
        trunk = self.trunk
        patches = trunk.patch_embed.norm(patches)
        prefix = [
            token.expand(len(patches), -1, -1)
            for token in (trunk.cls_token, getattr(trunk, "reg_token", None))
            if token is not None
        ]
        if positions is not None and trunk.no_embed_class:
            patches = patches + positions
        x = torch.cat([*prefix, patches], dim=1)  # (B, N, C)
        if positions is not None and not trunk.no_embed_class:
            x = x + positions
        return trunk.norm_pre(x)

    def qkv(self, block: int, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of a block's input."""
        layer = self.trunk.blocks[block]
        attn = layer.attn
        normed = self.normed(block, x)
        if attn.qkv is None:
            parts = [attn.q_proj(normed), attn.k_proj(normed), attn.v_proj(normed)]
        elif getattr(attn, "q_bias", None) is not None:
            bias = torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
            parts = F.linear(normed, attn.qkv.weight, bias).chunk(3, dim=-1)
        else:
            parts = attn.qkv(normed).chunk(3, dim=-1)
        kv_heads = getattr(attn, "num_kv_heads", attn.num_heads)
        q, k, v = (
            split_heads(p, h) for p, h in zip(parts, (attn.num_heads, kv_heads, kv_heads), strict=True)
        )
        q, k = attn.q_norm(q), attn.k_norm(k)
        if self._rope is not None:
            turns = self._rotations(grid, q)
            q, k = self._rotate(q, turns, attn), self._rotate(k, turns, attn)
        if kv_heads != attn.num_heads:
            groups = attn.num_heads // kv_heads
            k, v = (part.repeat_interleave(groups, dim=1) for part in (k, v))
        return q, k, v

    def _rotations(self, grid: Grid, like: Tensor) -> Tensor:
        turns = self._turns.get(grid)
        if turns is None:
            rope = self._rope
            if getattr(rope, "feat_shape", None) is not None:
                rope.update_feat_shape(list(grid))
            turns = self._turns[grid] = rope.get_embed(shape=list(grid)).detach()
        if turns.device != like.device:
            turns = self._turns[grid] = turns.to(like.device)
        return turns

    def _rotate(self, x: Tensor, turns: Tensor, attn: Any) -> Tensor:
        half = getattr(attn, "rotate_half", False)
        prefix, patches = x[:, :, : self.num_prefix], x[:, :, self.num_prefix :]
        return torch.cat([prefix, apply_rot_embed_cat(patches, turns, half=half)], dim=2).type_as(x)

    def normed(self, block: int, x: Tensor) -> Tensor:
        """Return the normalised input of a block's attention."""
        return self.trunk.blocks[block].norm1(x)

    def scale(self, block: int) -> float:
        """Return the factor on the attention logits of a block."""
        return self.trunk.blocks[block].attn.scale

    def project(self, block: int, y: Tensor, x: Tensor) -> Tensor:
        """Turn attended values into the block's attention branch."""
        layer = self.trunk.blocks[block]
        attn = layer.attn
        joined = attn.norm(join_heads(y))
        if attn.gate is not None:
            joined = joined * attn.gate(layer.norm1(x)).sigmoid()
        return _scaled(layer, "1", attn.proj(joined))

    def feed_forward(self, block: int, x: Tensor) -> Tensor:
        """Return the feed-forward branch of a block."""
        layer = self.trunk.blocks[block]
        return _scaled(layer, "2", layer.mlp(layer.norm2(x)))

    def to_text_space(self, x: Tensor) -> Tensor:
        """Project every token as the pooled token is projected."""
        trunk = self.trunk
        y = trunk.norm(x)
        if trunk.attn_pool is not None:
            # the pool of a single token: its value, however the latent query looks at it
            y = trunk.attn_pool(y.flatten(0, 1).unsqueeze(1)).unflatten(0, y.shape[:2])  # (B, N, C)
        return self.visual.head(trunk.head(trunk.fc_norm(y)))


def _scaled(layer: Any, half: str, branch: Tensor) -> Tensor:
    """Apply the layer scale of a block's attention ("1") or feed-forward ("2") half."""
    if isinstance(layer, EvaBlock):
        gamma = getattr(layer, f"gamma_{half}")
        return branch if gamma is None else branch * gamma
    return getattr(layer, f"ls{half}")(branch)
