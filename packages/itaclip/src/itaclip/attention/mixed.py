# SPDX-License-Identifier: Apache-2.0
"""Sums of attention maps, those of middle layers mixed in; fused for use or written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from itaclip.config import AttentionConfig
from itaclip.encoder.driver import AttentionStrategy, Encoder, LastInput
from itaclip.encoder.tower import Grid

# values in one call: few large calls keep a device busy, larger ones only cost memory
_STACKED_VALUES = 2**22


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


@dataclass(frozen=True)
class MixedAttention(AttentionStrategy):
    """Maps of the last block and of middle layers, summed and mixed; strategy ``"mixed"``.

    With the fields of its configuration this is ITACLIP, SCLIP, NACLIP, ClearCLIP, ResCLIP or plain CLIP.

    Args:
        config: Pairs, middle layers, locality, gain, and the parts of the block that are kept.
    """

    config: AttentionConfig

    @classmethod
    def from_config(cls, config: AttentionConfig) -> Self:
        """Build the strategy; its options are the fields of the configuration.

        Raises:
            ValueError: If there are other options.
        """
        if config.options:
            raise ValueError(
                f"attention {config.strategy} takes no options but the fields of the attention, "
                f"got {', '.join(config.options)}"
            )
        return cls(config)

    def layers(self, num_blocks: int) -> tuple[int, ...]:
        """Return the middle layers."""
        return self.config.resolve_layers(num_blocks)

    def features(self, last: LastInput, encoder: Encoder) -> Tensor:
        """Return the feature of every patch, ``(B, D, height, width)``."""
        return encoder.to_maps(self.tokens(last, encoder), last.grid)

    def tokens(self, last: LastInput, encoder: Encoder) -> Tensor:
        """Return all tokens in the space of the texts, ``(B, N, D)``, prefix tokens first."""
        return finish_block(self.attend(last, encoder), last, encoder, self.config)

    def attend(self, last: LastInput, encoder: Encoder) -> Tensor:
        """Return the attended values, ``(B, heads, N, head_dim)``."""
        return fused_attention(self.terms(last, encoder), last.qkv[2])

    def terms(self, last: LastInput, encoder: Encoder) -> list[Term]:
        """Return the maps that the last block sums, with their weights.

        Source: arXiv 2411.12044, self-self attention and its combination with middle layers; the published
            code weights both with 0.5.
        """
        config, bias = self.config, None
        if config.locality:
            bias = gaussian_bias(last.grid, encoder.tower.num_prefix, config.locality).to(last.x)
        share = config.mid_weight if last.earlier else 0.0
        sources = [(last.qkv, config.pairs, (1 - share) * config.gain, last.scale, bias)]
        for block in last.earlier:
            pairs = config.pairs if config.mid_pairs is None else config.mid_pairs
            weight = share / len(last.earlier) * config.gain
            sources.append((block.qkv, pairs, weight, block.scale, None))
        return [
            Term(qkv["qkv".index(left)], qkv["qkv".index(right)], weight, scale, bias)
            for qkv, pairs, weight, scale, bias in sources
            for left, right in pairs
        ]

    def attention_map(self, last: LastInput, encoder: Encoder) -> Tensor:
        """Return the mixed map, ``(B, heads, N, N)``; prefix tokens first."""
        return explicit_map(self.terms(last, encoder))


class ValueAttention(MixedAttention):
    """The value of each token in place of attention (MaskCLIP); strategy ``"value"``.

    Args:
        config: Gain, and the parts of the block that are kept.

    Source: MaskCLIP, arXiv 2112.01071.
    """

    def layers(self, num_blocks: int) -> tuple[int, ...]:
        """Return no blocks: no map is mixed in."""
        return ()

    def attend(self, last: LastInput, encoder: Encoder) -> Tensor:
        """Return the values, ``(B, heads, N, head_dim)``."""
        return last.qkv[2] * self.config.gain

    def attention_map(self, last: LastInput, encoder: Encoder) -> Tensor:
        """There is none."""
        return AttentionStrategy.attention_map(self, last, encoder)


def finish_block(y: Tensor, last: LastInput, encoder: Encoder, config: AttentionConfig) -> Tensor:
    """Run the rest of the last block on attended values, and the projection into the space of the texts.

    Args:
        y: Attended values, ``(B, heads, N, head_dim)``.
        last: Input of the block.
        encoder: The image tower.
        config: Whether the residual and the feed-forward half are kept.

    Returns:
        ``(B, N, D)``, not normalised.
    """
    tower = encoder.tower
    block = tower.num_blocks - 1
    branch = tower.project(block, y, last.x)
    x = last.x + branch if config.residual else branch
    if config.ffn:
        x = x + tower.feed_forward(block, x)
    return tower.to_text_space(x)


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
