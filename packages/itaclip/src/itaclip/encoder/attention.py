# SPDX-License-Identifier: Apache-2.0
"""The mixed attention of the last block: fused for use, explicit for looking at it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# values in one call: few large calls keep a device busy, larger ones only cost memory
_STACKED_VALUES = 2**22


class Term(NamedTuple):
    """One softmax map and its weight in the mix.

    Attributes:
        left: ``(B, heads, N, head_dim)``.
        right: Likewise; the same tensor in self-self attention.
        weight: Share in the mix.
        bias: Added to the logits, broadcast over ``(B, heads, N, N)``.
        scale: Factor on the logits.
    """

    left: Tensor
    right: Tensor
    weight: float
    scale: float
    bias: Tensor | None = None


def make_terms(
    qkv: tuple[Tensor, Tensor, Tensor],
    pairs: Sequence[str],
    weight: float,
    scale: float,
    bias: Tensor | None = None,
) -> list[Term]:
    """Return one term per pair, all of one weight."""
    sides = dict(zip("qkv", qkv, strict=True))
    return [Term(sides[left], sides[right], weight, scale, bias) for left, right in pairs]


def fused_attention(terms: Sequence[Term], v: Tensor) -> Tensor:
    """Return the mixed map times the values without forming a map, by linearity.

    Terms of equal weight, scale and bias are stacked on the batch axis, up to a bound on memory.

    Args:
        terms: At least one.
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
    """Return the mixed map itself, ``(B, heads, N, N)``: for figures and checks, it is large."""
    total: Tensor | None = None
    for term in terms:
        logits = term.left @ term.right.transpose(-1, -2) * term.scale
        weights = (logits if term.bias is None else logits + term.bias).softmax(dim=-1) * term.weight
        total = weights if total is None else total + weights
    if total is None:
        raise ValueError("terms must not be empty")
    return total
