# SPDX-License-Identifier: Apache-2.0
"""Runs an image tower with another last block: mixed attention, fused for use or written out as a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from itaclip.config import AttentionConfig, Positions
from itaclip.encoder.tower import Grid, Tower

# values in one call: few large calls keep a device busy, larger ones only cost memory
_STACKED_VALUES = 2**22

QKV = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class LastInput:
    """Input of the last block.

    Attributes:
        x: Tokens, ``(B, N, C)``.
        qkv: Queries, keys and values, each ``(B, heads, N, head_dim)``.
        mids: Queries, keys and values of the middle layers, and the scale of their logits.
        grid: Patches along height and width.
    """

    x: Tensor
    qkv: QKV
    mids: tuple[tuple[QKV, float], ...]
    grid: Grid


class Term(NamedTuple):
    """One softmax map and its weight in the mix.

    Attributes:
        left: ``(B, heads, N, head_dim)``.
        right: Likewise; the same tensor in self-self attention.
        weight: Weight in the mix.
        scale: Factor on the logits.
        bias: Addition to the logits, broadcast over ``(B, heads, N, N)``.
    """

    left: Tensor
    right: Tensor
    weight: float
    scale: float
    bias: Tensor | None = None


class Encoder:
    """Turns images into one feature per patch, in the embedding space of the texts.

    Args:
        tower: The image tower in steps.
    """

    def __init__(self, tower: Tower) -> None:
        self.tower = tower

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch, in pixels."""
        return self.tower.patch_size

    @property
    def device(self) -> torch.device:
        """Device of the tower."""
        return self.tower.device

    def __call__(
        self, images: Tensor, attention: AttentionConfig, *, positions: Positions = "legacy"
    ) -> Tensor:
        """Return the feature of every patch, not normalised.

        Args:
            images: ``(B, 3, H, W)``, normalised, any size of at least one patch.
            attention: Configuration of the last block.
            positions: Interpolation of position embeddings.

        Returns:
            ``(B, D, height, width)`` in patches.
        """
        last = self.prepare(images, attention, positions=positions)
        return self.to_maps(self.tokens(last, attention), last.grid)

    def prepare(
        self, images: Tensor, attention: AttentionConfig, *, positions: Positions = "legacy"
    ) -> LastInput:
        """Run every block but the last, and return the input of its mixed attention."""
        tower = self.tower
        wanted = () if attention.value_only else attention.resolve_layers(tower.num_blocks)
        x, grid = tower.embed(images, positions)
        kept: dict[int, tuple[QKV, float]] = {}
        for block in range(tower.num_blocks - 1):
            q, k, v = tower.qkv(block, x, grid)
            scale = tower.scale(block)
            if block + 1 in wanted:
                kept[block + 1] = ((q, k, v), scale)
            y = F.scaled_dot_product_attention(q, k, v, scale=scale)
            x = x + tower.project(block, y, x)
            x = x + tower.feed_forward(block, x)
        qkv = tower.qkv(tower.num_blocks - 1, x, grid)
        return LastInput(x, qkv, tuple(kept[layer] for layer in wanted), grid)

    def tokens(self, last: LastInput, attention: AttentionConfig) -> Tensor:
        """Run the last block and the projection into text space.

        Args:
            last: Result of :meth:`prepare`.
            attention: Configuration given to :meth:`prepare`.

        Returns:
            ``(B, N, D)``, prefix tokens first, not normalised.
        """
        block = self.tower.num_blocks - 1
        v = last.qkv[2]
        y = v * attention.gain if attention.value_only else fused_attention(self.terms(last, attention), v)
        branch = self.tower.project(block, y, last.x)
        x = last.x + branch if attention.residual else branch
        if attention.ffn:
            x = x + self.tower.feed_forward(block, x)
        return self.tower.to_text_space(x)

    def terms(self, last: LastInput, attention: AttentionConfig) -> list[Term]:
        """Return the maps that the last block sums, with their weights.

        Args:
            last: Result of :meth:`prepare`.
            attention: Configuration given to :meth:`prepare`.

        Source: arXiv 2411.12044, self-self attention and its combination with middle layers; the published
            code weights both with 0.5.
        """
        bias = None
        if attention.locality:
            bias = gaussian_bias(last.grid, self.tower.num_prefix, attention.locality).to(last.x)
        share = attention.mid_weight if last.mids else 0.0
        weight = (1 - share) * attention.gain
        scale = self.tower.scale(self.tower.num_blocks - 1)
        sources = [(last.qkv, attention.pairs, weight, scale, bias)]
        for qkv, mid_scale in last.mids:
            pairs = attention.pairs if attention.mid_pairs is None else attention.mid_pairs
            sources.append((qkv, pairs, share / len(last.mids) * attention.gain, mid_scale, None))
        return [
            Term(qkv["qkv".index(left)], qkv["qkv".index(right)], weight, scale, bias)
            for qkv, pairs, weight, scale, bias in sources
            for left, right in pairs
        ]

    def attention_map(
        self, images: Tensor, attention: AttentionConfig, *, positions: Positions = "legacy"
    ) -> Tensor:
        """Return the mixed map of the last block, ``(B, heads, N, N)``; prefix tokens first.

        Raises:
            ValueError: If ``value_only`` is set.
        """
        if attention.value_only:
            raise ValueError("value_only has no attention map")
        return explicit_map(self.terms(self.prepare(images, attention, positions=positions), attention))

    def to_maps(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Drop the prefix tokens and lay out the rest, ``(B, N, D)`` to ``(B, D, height, width)``."""
        return tokens[:, self.tower.num_prefix :].transpose(1, 2).unflatten(2, grid)


def fused_attention(terms: Sequence[Term], v: Tensor) -> Tensor:
    """Return the mixed map times the values without forming a map, by linearity.

    Terms of equal weight, scale and bias are stacked on the batch axis, up to a bound on memory.

    Args:
        terms: One or more terms.
        v: ``(B, heads, N, head_dim)``.

    Returns:
        ``(B, heads, N, head_dim)``.
    """
    at_once = max(1, _STACKED_VALUES // v.numel())
    total: Tensor | None = None
    for start, stop in _runs(terms, at_once):
        group = terms[start:stop]
        first = group[0]
        if len(group) == 1:
            y = F.scaled_dot_product_attention(
                first.left, first.right, v, attn_mask=first.bias, scale=first.scale
            )
        else:
            left = torch.cat([term.left for term in group])  # (terms * B, heads, N, head_dim)
            right = torch.cat([term.right for term in group])
            y = F.scaled_dot_product_attention(
                left, right, v.repeat(len(group), 1, 1, 1), attn_mask=first.bias, scale=first.scale
            )
            y = y.unflatten(0, (len(group), len(v))).sum(dim=0)
        total = y * first.weight if total is None else total.add_(y, alpha=first.weight)
    if total is None:
        raise ValueError("terms must not be empty")
    return total


def _runs(terms: Sequence[Term], longest: int) -> list[tuple[int, int]]:
    """Cut the terms into runs of equal weight, scale and bias, none longer than ``longest``."""
    runs: list[tuple[int, int]] = []
    start = 0
    for stop in range(1, len(terms) + 1):
        ended = stop == len(terms) or stop - start == longest or not _alike(terms[start], terms[stop])
        if ended:
            runs.append((start, stop))
            start = stop
    return runs


def _alike(a: Term, b: Term) -> bool:
    # a bias of one row per batch entry would have to be stacked too; those terms go one by one
    plain = a.bias is None or a.bias.ndim == 2 or a.bias.shape[0] == 1
    return a.weight == b.weight and a.scale == b.scale and a.bias is b.bias and plain


def explicit_map(terms: Sequence[Term]) -> Tensor:
    """Return the mixed map itself, ``(B, heads, N, N)``; large, for figures and checks."""
    total: Tensor | None = None
    for term in terms:
        logits = term.left @ term.right.transpose(-1, -2) * term.scale
        weights = (logits if term.bias is None else logits + term.bias).softmax(dim=-1) * term.weight
        total = weights if total is None else total + weights
    if total is None:
        raise ValueError("terms must not be empty")
    return total


def gaussian_bias(grid: Grid, num_prefix: int, std: float) -> Tensor:
    """Return ``exp(-distance^2 / (2 std^2))`` between patches, and 0 for prefix tokens.

    Args:
        grid: Patches along height and width.
        num_prefix: Class and register tokens in front of the patches.
        std: Standard deviation in patches.

    Returns:
        ``(N, N)``, fp32, N tokens with the prefix first.

    Source: NACLIP, arXiv 2404.08181, as a bias of the logits.
    """
    places = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float32) for n in grid))  # (patches, 2)
    squared = (places[:, None] - places[None]).square().sum(dim=-1)  # (patches, patches)
    return F.pad(torch.exp(squared / (-2 * std**2)), (num_prefix, 0, num_prefix, 0))
