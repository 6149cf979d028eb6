# SPDX-License-Identifier: Apache-2.0
"""ProxyCLIP: the values of CLIP's last block, gathered by the similarity of another tower's patches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from itaclip.attention.towers import PatchTower
from itaclip.encoder.driver import AttentionStrategy, Encoder, LastInput
from itaclip.encoder.tower import join_heads, split_heads


@dataclass(kw_only=True)
class ProxyAttention(AttentionStrategy):
    """Attention from a vision foundation model; strategy ``"proxyclip"``.

    Features come on the grid of the other tower's patches. The class token takes no part; residual and
    feed-forward half of the block are dropped.

    Args:
        beta: Factor on the mean similarity, which is subtracted.
        gamma: Factor on the shifted similarities before the softmax.
        tower: Vision transformer of timm: a name, hub id, folder, or the model itself.

    Raises:
        ValueError: If ``gamma`` is not positive.

    Source: ProxyCLIP, arXiv 2408.04883, and its published code.
    """

    has_towers: ClassVar[bool] = True

    beta: float = 1.2
    gamma: float = 3.0
    tower: str | nn.Module = "vit_base_patch8_224.dino"
    _patches: PatchTower | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"gamma must be positive, got {self.gamma}")

    def load(self) -> None:
        """Load the other tower.

        Raises:
            ModelNotFoundError: If it is not there.
            ValueError: If it is no vision transformer.
        """
        if self._patches is None:
            self._patches = PatchTower(self.tower)

    def bind(self, encoder: Encoder) -> None:
        """Move the other tower to the device of the encoder."""
        super().bind(encoder)
        self._loaded.to(encoder.device, encoder.tower.dtype)

    @property
    def _loaded(self) -> PatchTower:
        if self._patches is None:
            raise RuntimeError("the other tower is not loaded: call bind first")
        return self._patches

    def features(self, last: LastInput, encoder: Encoder) -> Tensor:
        """Return features on the grid of the other tower, ``(B, D, height, width)``."""
        branch, grid = self.branch(last, encoder)
        return encoder.tower.to_text_space(branch).transpose(1, 2).unflatten(2, grid)

    def branch(self, last: LastInput, encoder: Encoder) -> tuple[Tensor, tuple[int, int]]:
        """Return the attention branch of the last block ``(B, N, C)``, and the grid of its N patches."""
        maps = self._loaded(encoder.to_pixels(last.images))
        grid = (maps.shape[-2], maps.shape[-1])
        values = last.qkv[2]
        weights = proxy_map(maps, beta=self.beta, gamma=self.gamma).to(values.dtype)
        first, heads = encoder.tower.num_prefix, values.shape[1]
        moved = regrid(join_heads(values)[:, first:], last.grid, grid)
        y = weights[:, None] @ split_heads(moved, heads)  # (B, heads, N, head_dim)
        x = regrid(last.x[:, first:], last.grid, grid)
        return encoder.tower.project(encoder.tower.num_blocks - 1, y, x), grid


def proxy_map(maps: Tensor, *, beta: float, gamma: float) -> Tensor:
    """Return attention weights between patches from the similarity of their features.

    ``softmax(gamma (S - beta mean(S)))`` over the entries that are not negative, where S holds the cosines
    and the mean is that of an image. A patch that nothing is left for keeps itself.

    Args:
        maps: ``(B, C, height, width)``.
        beta: Factor on the mean.
        gamma: Factor on the shifted cosines.

    Returns:
        ``(B, N, N)``, fp32, rows adding up to 1.

    Source: ProxyCLIP, arXiv 2408.04883, adaptive normalisation and masking; rows without any entry, which
        even images have, are not treated there.
    """
    unit = F.normalize(maps.float().flatten(2), dim=1)
    similarity = unit.transpose(1, 2) @ unit  # (B, N, N)
    logits = (similarity - beta * similarity.mean(dim=(1, 2), keepdim=True)) * gamma
    logits = logits.masked_fill(logits < 0, -torch.inf)
    empty = logits.isneginf().all(dim=-1, keepdim=True)
    own = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
    return logits.masked_fill(empty & own, 0).softmax(dim=-1)


def regrid(tokens: Tensor, grid: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Move patches ``(B, N, C)`` to another grid over the same pixels, bilinearly."""
    if grid == target:
        return tokens
    maps = tokens.transpose(1, 2).unflatten(2, grid)
    return F.interpolate(maps, size=target, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
