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
    spare = 1 if k < scores.shape[-1] else 0
    # one more than asked: if it equals the last of the chosen, top-k had a choice between ties
    values, index = torch.topk(scores, k + spare, dim=-1, sorted=False)  # (b, N, k + spare)
    if spare:
        least = values.argmin(dim=-1, keepdim=True)
        runner_up = values.gather(-1, least)
        # the last slot moves to where the least stood, and drops out
        values = values.scatter(-1, least, values[..., -1:])[..., :-1]
        index = index.scatter(-1, least, index[..., -1:])[..., :-1]
        tied = ((values.amin(dim=-1, keepdim=True) == runner_up) & (runner_up > float("-inf"))).squeeze(-1)
        if bool(tied.any()):
            order = torch.sort(scores[tied], dim=-1, descending=True, stable=True)
            index[tied] = order.indices[:, :k]
            values[tied] = order.values[:, :k]
    return index.masked_fill(values == float("-inf"), -1).to(torch.int32)
