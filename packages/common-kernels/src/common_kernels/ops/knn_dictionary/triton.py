# SPDX-License-Identifier: Apache-2.0
"""Fused similarity and exact selection in Triton: a program keeps whole score rows in registers.

The ``k``-th largest score of a row is found by bisection on integers that order as the scores do; no
``N x N`` array is stored. The registered operator ``torch.ops.common_kernels.knn_dictionary_index`` is
opaque to ``torch.compile``.
"""

# the kernel's arguments are pointers and traced values, which the type system cannot name
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

_LOWEST_KEY = tl.constexpr(-(2**31))
_SELF_KEY = tl.constexpr(0x7F800000)  # plus infinity
_LARGEST = tl.constexpr(torch.finfo(torch.float32).max)


@triton.jit
def _ordered_keys(scores):
    """Map fp32 scores to int32 that compare alike; NaN and minus infinity become the lowest number."""
    scores = tl.where(scores == scores, scores, -_LARGEST)
    scores = tl.minimum(tl.maximum(scores, -_LARGEST), _LARGEST)
    scores = tl.where(scores == 0.0, 0.0, scores)  # minus zero ties with zero
    bits = scores.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _row_threshold(keys, k):
    """Return per row a value that at least ``k`` keys reach, and that no larger one shares unless tied."""
    low = tl.min(keys, axis=1).to(tl.int64)  # reached by all
    high = tl.max(keys, axis=1).to(tl.int64) + 1  # reached by none
    while tl.max(high - low, axis=0) > 1:
        middle = low + ((high - low) >> 1)
        count = tl.sum((keys >= middle.to(tl.int32)[:, None]).to(tl.int32), axis=1)
        low = tl.where(count >= k, middle, low)
        # exactly k keys from here on: this row is settled
        high = tl.where(count > k, high, tl.where(count == k, middle + 1, middle))
        high = tl.maximum(high, low + 1)
    return low.to(tl.int32)


@triton.jit
def knn_dictionary_kernel(
    x_ptr, norm_ptr, region_ptr, index_ptr,
    N, C, k, num_groups,
    IS_L2: tl.constexpr, HAS_REGIONS: tl.constexpr, FORCE_SELF: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Write the lists of ``BLOCK_R`` tokens of one window, in ascending order."""
    num_tiles = tl.cdiv(N, BLOCK_R)
    pid = tl.program_id(0)
    i_b = (pid // num_tiles).to(tl.int64)
    offs_r = (pid % num_tiles) * BLOCK_R + tl.arange(0, BLOCK_R)
    offs_n = tl.arange(0, BLOCK_N)
    mask_r, mask_n = offs_r < N, offs_n < N

    x_ptr += i_b * N * C
    scores = tl.zeros([BLOCK_R, BLOCK_N], dtype=tl.float32)
    for start_c in tl.range(0, C, BLOCK_C):
        offs_c = start_c + tl.arange(0, BLOCK_C)
        mask_c = (offs_c < C)[None, :]
        rows = tl.load(
            x_ptr + offs_r[:, None] * C + offs_c[None, :], mask=mask_r[:, None] & mask_c, other=0.0
        )
        cols = tl.load(
            x_ptr + offs_n[:, None] * C + offs_c[None, :], mask=mask_n[:, None] & mask_c, other=0.0
        )
        scores = tl.dot(rows, tl.trans(cols), scores, input_precision="ieee")
    if IS_L2:
        # minus the squared distance, less the row's own norm, which cannot change its order
        norm = tl.load(norm_ptr + i_b * N + offs_n, mask=mask_n, other=0.0)
        scores = 2.0 * scores - norm[None, :]

    keys = _ordered_keys(scores)
    if FORCE_SELF:
        keys = tl.where(offs_r[:, None] == offs_n[None, :], _SELF_KEY, keys)
    if HAS_REGIONS:
        region_ptr += (i_b % num_groups) * N
        region_r = tl.load(region_ptr + offs_r, mask=mask_r, other=-1)
        region_n = tl.load(region_ptr + offs_n, mask=mask_n, other=-1)
        paired = (region_r[:, None] == region_n[None, :]) & (region_r >= 0)[:, None]
        keys = tl.where(paired, keys, _LOWEST_KEY)
    keys = tl.where(mask_n[None, :], keys, _LOWEST_KEY)

    threshold = _row_threshold(keys, k)[:, None]
    above = keys > threshold
    tied = (keys == threshold).to(tl.int32)
    free = k - tl.sum(above.to(tl.int32), axis=1)
    chosen = above | ((tied > 0) & (tl.cumsum(tied, axis=1) <= free[:, None]))
    chosen = (chosen & (keys > _LOWEST_KEY)).to(tl.int32)
    slot = tl.cumsum(chosen, axis=1) - 1
    index_row = index_ptr + (i_b * N + offs_r)[:, None] * k
    columns = tl.broadcast_to(offs_n[None, :], [BLOCK_R, BLOCK_N])
    tl.store(index_row + slot, columns, mask=(chosen > 0) & mask_r[:, None])
    offs_k = tl.arange(0, BLOCK_K)[None, :]
    unused = (offs_k >= tl.sum(chosen, axis=1)[:, None]) & (offs_k < k)
    tl.store(index_row + offs_k, tl.full([BLOCK_R, BLOCK_K], -1, tl.int32), mask=unused & mask_r[:, None])


torch.library.define(
    "common_kernels::knn_dictionary_index",
    "(Tensor x, Tensor? norm, Tensor? regions, int k, bool force_self) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


@torch.library.impl("common_kernels::knn_dictionary_index", "default")
def _launch(x: Tensor, norm: Tensor | None, regions: Tensor | None, k: int, force_self: bool) -> Tensor:
    B, N, C = x.shape
    index = x.new_empty((B, N, k), dtype=torch.int32)
    if index.numel() == 0:
        return index
    block_n = max(32, triton.next_power_of_2(N))
    options = launch_options(block_n, x.dtype)
    kernel: Any = knn_dictionary_kernel
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        kernel[(B * triton.cdiv(N, options["BLOCK_R"]),)](
            x, norm, regions, index, N, C, k, 1 if regions is None else regions.shape[0],
            IS_L2=norm is not None, HAS_REGIONS=regions is not None, FORCE_SELF=force_self,
            BLOCK_N=block_n, BLOCK_K=triton.next_power_of_2(k), **options,
        )  # fmt: skip
    return index


@torch.library.register_fake("common_kernels::knn_dictionary_index")
def _fake(x: Tensor, norm: Tensor | None, regions: Tensor | None, k: int, force_self: bool) -> Tensor:
    return x.new_empty((*x.shape[:2], k), dtype=torch.int32)


def launch_options(block_n: int, dtype: torch.dtype) -> dict[str, Any]:
    """Return the sizes that keep a block of rows of ``block_n`` scores within registers."""
    return {
        "BLOCK_R": 8 if block_n > 1024 else 16,
        "BLOCK_C": 16,  # the least depth that a product of every supported Triton takes
        "num_warps": 4 if block_n <= 256 else 8,
        "num_stages": 1,
        "enable_fp_fusion": True,
    }


def knn_dictionary_triton(
    x: Tensor, k: int, similarity: str, force_self: bool, regions: Tensor | None
) -> Tensor:
    """Return the index list, ``(B, N, k)``, int32, ascending in each row, ``-1`` in unused slots.

    Products are exact for fp16 and bf16 and IEEE fp32 otherwise, never TF32; sums are fp32. Their order
    differs from the reference's, so two keys whose similarities differ by rounding may change places:
    every chosen similarity is at least every unchosen one less that rounding, and the sets are equal
    where the gap at the ``k``-th is wider. Equal rows of ``x`` tie exactly and go to the lower index.
    """
    x = x.detach()
    if similarity == "cosine":
        x = F.normalize(x.float(), dim=-1)
    norm = x.float().square().sum(dim=-1).contiguous() if similarity == "l2" else None  # (B, N)
    regions = None if regions is None else regions.long().contiguous()
    return torch.ops.common_kernels.knn_dictionary_index(x.contiguous(), norm, regions, k, force_self)
