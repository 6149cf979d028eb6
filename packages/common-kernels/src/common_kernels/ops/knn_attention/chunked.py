# SPDX-License-Identifier: Apache-2.0
"""The reference, some queries at a time: little memory on any device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from common_kernels.ops.knn_attention.reference import knn_attention_reference
from common_kernels.ops.knn_dictionary import KNNDictionary

_GATHERED_ELEMENTS = 1 << 19  # of one chunk's keys: two megabytes in fp32, within a core's cache


def knn_attention_chunked(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> Tensor:
    """Return ``(B, heads, N, head_dim)`` in the dtype of ``q``; the backward gathers again."""
    B, heads, N, head_dim = q.shape
    if B == 0:  # nothing to cut, but the graph must reach every input
        return knn_attention_reference(q, k, v, dictionary, bias, scale)
    train = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (q, k, v, bias))
    length = max(1, _GATHERED_ELEMENTS // max(1, heads * dictionary.k * head_dim))
    windows: list[Tensor] = []
    for b in range(B):
        parts: list[Tensor] = []
        for start in range(0, N, length):
            rows = slice(start, start + length)
            part = KNNDictionary(
                dictionary.index[b : b + 1, rows],
                dictionary.num_keys,
                is_full=dictionary.is_full,
                has_empty_rows=dictionary.has_empty_rows,
            )
            arguments = (
                q[b : b + 1, :, rows],
                k[b : b + 1],
                v[b : b + 1],
                part,
                None if bias is None else bias[:, rows],
                scale,
            )
            if train:
                parts.append(checkpoint(knn_attention_reference, *arguments, use_reentrant=False))
            else:
                parts.append(knn_attention_reference(*arguments))
        windows.append(torch.cat(parts, dim=2))
    return torch.cat(windows)
