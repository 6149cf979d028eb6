# SPDX-License-Identifier: Apache-2.0
"""The specification of :func:`knn_attention`: gather the listed keys, softmax, sum."""

from __future__ import annotations

import torch
from torch import Tensor

from common_kernels.ops.knn_dictionary import KNNDictionary


def knn_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> Tensor:
    """Return ``(B, heads, N, head_dim)`` in the dtype of ``q``; logits and softmax in fp32 (or fp64)."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    B, heads, _, head_dim = q.shape
    index = dictionary.index.long()  # (B, N, K)
    unused = index < 0
    flat = index.clamp(min=0).flatten(1)[:, None, :, None].expand(B, heads, -1, head_dim)
    keys = k.gather(2, flat).unflatten(2, index.shape[1:])  # (B, heads, N, K, head_dim)
    values = v.gather(2, flat).unflatten(2, index.shape[1:])  # (B, heads, N, K, head_dim)
    logits = (q.unsqueeze(-2).to(wide) * keys.to(wide)).sum(dim=-1) * scale  # (B, heads, N, K)
    if bias is not None:
        pairs = index.clamp(min=0).unsqueeze(1).expand(B, heads, -1, -1)
        logits = logits + bias.to(wide).expand(B, -1, -1, -1).gather(-1, pairs)
    logits = logits.masked_fill(unused.unsqueeze(1), float("-inf"))
    # an empty list, or a bias of minus infinity throughout: no key has any weight
    closed = (logits == float("-inf")).all(dim=-1, keepdim=True)  # (B, heads, N, 1)
    weights = logits.masked_fill(closed, 0.0).softmax(dim=-1)  # (B, heads, N, K)
    weights = weights.masked_fill(closed, 0.0)
    # an unused slot holds key 0 by chance: select it away, since 0 * inf would be NaN
    values = values.to(wide).masked_fill(unused[:, None, :, :, None], 0.0)
    return (weights.unsqueeze(-1) * values).sum(dim=-2).to(q.dtype)  # (B, heads, N, head_dim)
