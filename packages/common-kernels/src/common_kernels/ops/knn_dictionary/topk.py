# SPDX-License-Identifier: Apache-2.0
"""The fast torch path of :func:`knn_dictionary`: unsorted top-k, window block by window block."""

from __future__ import annotations

import torch
from torch import Tensor

from common_kernels.ops.knn_dictionary.reference import ranking

# scores of one block; a few megabytes stay in the last-level cache of a desktop CPU
_BLOCK_ELEMENTS = 1 << 22


def knn_dictionary_topk(
    x: Tensor, k: int, similarity: str, force_self: bool, regions: Tensor | None
) -> Tensor:
    """Return the same sets as the reference, ``(B, N, k)``, int32, in another order."""
    B, N, _ = x.shape
    groups = 1 if regions is None else regions.shape[0]
    per_block = max(1, _BLOCK_ELEMENTS // max(1, N * N * groups)) * groups
    index = torch.empty((B, N, k), dtype=torch.int32, device=x.device)
    for start in range(0, B, per_block):
        block = slice(start, start + per_block)
        index[block] = _select(ranking(x[block], similarity, force_self, regions), k)
    return index


def _select(scores: Tensor, k: int) -> Tensor:
    values, index = torch.topk(scores, k, dim=-1, sorted=False)  # (b, N, k)
    threshold = values.amin(dim=-1, keepdim=True)
    # top-k picks any of the keys that tie at the threshold: redo the rows where that was a choice
    tied = (scores >= threshold).sum(dim=-1) > k  # (b, N)
    if bool(tied.any()):
        order = torch.sort(scores[tied], dim=-1, descending=True, stable=True)
        index[tied] = order.indices[:, :k]
        values[tied] = order.values[:, :k]
    return index.masked_fill(values == float("-inf"), -1).to(torch.int32)
