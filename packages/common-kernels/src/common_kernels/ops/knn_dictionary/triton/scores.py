# SPDX-License-Identifier: Apache-2.0
"""Device functions that the dictionary kernels share: scores as integers, thresholds, lists."""

# the kernels' arguments are pointers and traced values, which the type system cannot name
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import torch
import triton
import triton.language as tl

LOWEST_KEY = tl.constexpr(-(2**31))  # of a forbidden pair; every score is above it
SELF_KEY = tl.constexpr(0x7F800000)  # plus infinity; every other score is below it
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
def pair_keys(
    x_ptr, column_ptr, region_ptr, offs_r, offs_n, N, C,
    SIMILARITY: tl.constexpr, HAS_REGIONS: tl.constexpr, FORCE_SELF: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Return the keys of the tokens ``offs_r`` with the tokens ``offs_n`` of a window, ``(R, N)``, int32."""
    mask_r, mask_n = offs_r < N, offs_n < N
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
    # a row's own norm cannot change its order, so that only that of the column enters
    if SIMILARITY == "l2":
        column = tl.load(column_ptr + offs_n, mask=mask_n, other=0.0)
        scores = 2.0 * scores - column[None, :]
    if SIMILARITY == "cosine":
        column = tl.load(column_ptr + offs_n, mask=mask_n, other=0.0)
        scores = scores * column[None, :]

    keys = _ordered_keys(scores)
    if FORCE_SELF:
        keys = tl.where(offs_r[:, None] == offs_n[None, :], SELF_KEY, keys)
    if HAS_REGIONS:
        region_r = tl.load(region_ptr + offs_r, mask=mask_r, other=-1)
        region_n = tl.load(region_ptr + offs_n, mask=mask_n, other=-1)
        paired = (region_r[:, None] == region_n[None, :]) & (region_r >= 0)[:, None]
        keys = tl.where(paired, keys, LOWEST_KEY)
    return tl.where(mask_n[None, :], keys, LOWEST_KEY)


@triton.jit
def row_threshold(keys, k):
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
def store_best(keys, columns, row_ptr, mask_r, k, BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr):
    """Write the columns of the ``k`` largest keys of each row in their order, then ``-1``.

    Columns ascend, so that among equal keys the first ones are those of the lower index.
    """
    threshold = row_threshold(keys, k)[:, None]
    above = keys > threshold
    tied = (keys == threshold).to(tl.int32)
    free = k - tl.sum(above.to(tl.int32), axis=1)
    chosen = above | ((tied > 0) & (tl.cumsum(tied, axis=1) <= free[:, None]))
    chosen = (chosen & (keys > LOWEST_KEY)).to(tl.int32)
    slot = tl.cumsum(chosen, axis=1) - 1
    tl.store(row_ptr[:, None] + slot, columns, mask=(chosen > 0) & mask_r[:, None])
    fill_unused(row_ptr, mask_r, tl.sum(chosen, axis=1), k, BLOCK_R, BLOCK_K)


@triton.jit
def fill_unused(row_ptr, mask_r, taken, k, BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr):
    """Write ``-1`` into the slots of each row from the ``taken``-th on."""
    offs_k = tl.arange(0, BLOCK_K)[None, :]
    unused = (offs_k >= taken[:, None]) & (offs_k < k)
    tl.store(
        row_ptr[:, None] + offs_k, tl.full([BLOCK_R, BLOCK_K], -1, tl.int32), mask=unused & mask_r[:, None]
    )
