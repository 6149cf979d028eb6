# SPDX-License-Identifier: Apache-2.0
"""The dictionary on the CPU: scores of some rows by torch's product, selected while they are in the cache.

The compiled selection is exact and keeps the rule for ties, so no candidate too many is needed to find them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common_kernels._batching import run_one_by_one
from common_kernels._native import not_auto_exporting, why_no_native

_SELECT = "common_kernels::select_native"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_UNAVAILABLE = why_no_native()  # read once: a graph cannot ask
_BLOCK_ELEMENTS = 1 << 20  # scores at a time: four megabytes stay in a cache

torch.library.define(
    _SELECT,
    "(Tensor scores, Tensor penalty, Tensor regions, int k, int first_window, int first_row, bool force_self)"
    " -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


@torch.library.register_fake(_SELECT)  # pyright: ignore[reportUntypedFunctionDecorator]
def _fake_select(
    scores: Tensor,
    penalty: Tensor,
    regions: Tensor,
    k: int,
    first_window: int,
    first_row: int,
    force_self: bool,
) -> Tensor:
    return scores.new_empty((*scores.shape[:2], k), dtype=torch.int32)


def _map_select(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
    def run(*entry: Any) -> tuple[Tensor]:
        return (torch.ops.common_kernels.select_native(*entry),)

    (index,), (dim,) = run_one_by_one(run, info.batch_size, in_dims, arguments)
    return index, dim


torch.library.register_vmap(_SELECT, _map_select)


def why_not_native(
    x: Tensor, k: int, similarity: str, force_self: bool, regions: Tensor | None
) -> str | None:
    """Return why the kernels cannot run this call, or ``None``."""
    if x.device.type != "cpu":
        return f"needs tensors on the CPU, got {x.device.type}"
    if x.dtype not in _DTYPES:
        return f"needs float16, bfloat16 or float32, got {x.dtype}"
    return _UNAVAILABLE


def not_auto_native(
    x: Tensor, k: int, similarity: str, force_self: bool, regions: Tensor | None
) -> str | None:
    """Return why ``"auto"`` should prefer another backend although this one runs, or ``None``."""
    return not_auto_exporting()


def knn_dictionary_native(
    x: Tensor, k: int, similarity: str, force_self: bool, regions: Tensor | None
) -> Tensor:
    """Return the same sets as the reference, ``(B, N, k)``, int32, ascending within each row."""
    x = x.detach().float()
    B, N, _ = x.shape
    if similarity == "cosine":
        x = F.normalize(x, dim=-1)
    # minus the squared distance, less the row's own norm, which cannot change its order
    penalty = x.square().sum(dim=-1) if similarity == "l2" else x.new_empty(0)
    labels = x.new_empty(0, dtype=torch.int64) if regions is None else regions.long().contiguous()
    select = torch.ops.common_kernels.select_native
    if B * N * N <= _BLOCK_ELEMENTS:
        return select(x @ x.mT, penalty, labels, k, 0, 0, force_self)
    windows = max(1, _BLOCK_ELEMENTS // (N * N))
    rows = min(N, max(1, _BLOCK_ELEMENTS // N))
    parts: list[Tensor] = []
    for b in range(0, B, windows):
        block = x[b : b + windows]
        own = penalty[b : b + windows]
        for i in range(0, N, rows):
            scores = block[:, i : i + rows] @ block.mT
            parts.append(select(scores, own, labels, k, b, i, force_self))
    if rows == N:
        return torch.cat(parts)
    return torch.cat(parts, dim=1).view(B, N, k)  # one window at a time
