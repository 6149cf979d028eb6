# SPDX-License-Identifier: Apache-2.0
"""The dictionary of long windows in passes over tiles of the similarity, none of which is stored.

1. The columns of a row are dealt into groups, at least twice as many as keys are wanted, and of each only
   the largest score is kept.
2. The ``k``-th largest of these is a lower bound on the ``k``-th largest score of the row.
3. The columns that reach the bound are written down in order, with their scores: about ``1.4 k`` at most.
4. The best ``k`` of those are chosen.
5. A row that had more of them than room (many ties, or its best all in few groups) is chosen exactly by
   counting over all columns again and again. Few programs ever get that far.

Integers are counted and no atomics used, so that repeats agree bit for bit. The passes compute a
score alike; were one to differ in its last bit, and a row thus to lack a column, step 5 would take it.
"""

# the kernels' arguments are pointers and traced values, which the type system cannot name
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
from __future__ import annotations

import triton
import triton.language as tl

from common_kernels.ops.knn_dictionary.triton.scores import (
    LOWEST_KEY,
    SELF_KEY,
    fill_unused,
    pair_keys,
    row_threshold,
    store_best,
)


@triton.jit
def knn_dictionary_maxima_kernel(
    x_ptr, column_ptr, region_ptr, maxima_ptr,
    N, C, num_groups,
    SIMILARITY: tl.constexpr, HAS_REGIONS: tl.constexpr, FORCE_SELF: tl.constexpr, SLOTS: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Write the largest keys of ``BLOCK_N`` of the ``SLOTS`` groups of the columns of each token."""
    NUM_PARTS: tl.constexpr = SLOTS // BLOCK_N
    num_tiles = tl.cdiv(N, BLOCK_R)
    pid = tl.program_id(0)
    i_part = pid % NUM_PARTS
    i_b = (pid // NUM_PARTS // num_tiles).to(tl.int64)
    offs_r = (pid // NUM_PARTS % num_tiles) * BLOCK_R + tl.arange(0, BLOCK_R)
    x_ptr += i_b * N * C
    if SIMILARITY != "dot":
        column_ptr += i_b * N
    if HAS_REGIONS:
        region_ptr += (i_b % num_groups) * N
    best = tl.full([BLOCK_R, BLOCK_N], LOWEST_KEY, dtype=tl.int32)
    # similar tokens stand beside and below each other, and groups must not: neighbouring tiles go to
    # different parts, and those of one part are turned against each other by the golden ratio
    for start_n in tl.range(i_part * BLOCK_N, N, SLOTS):
        turn = (start_n // BLOCK_N) * ((BLOCK_N * 79 // 128) | 1)
        offs_n = start_n + ((tl.arange(0, BLOCK_N) + turn) & (BLOCK_N - 1))
        keys = pair_keys(
            x_ptr, column_ptr, region_ptr, offs_r, offs_n, N, C,
            SIMILARITY, HAS_REGIONS, FORCE_SELF, BLOCK_R, BLOCK_N, BLOCK_C,
        )  # fmt: skip
        best = tl.maximum(best, keys)
    target = (i_b * N + offs_r)[:, None] * SLOTS + i_part * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    tl.store(maxima_ptr + target, best, mask=(offs_r < N)[:, None])


@triton.jit
def knn_dictionary_bound_kernel(
    maxima_ptr, bound_ptr, peak_ptr, num_rows, k, SLOTS: tl.constexpr, BLOCK_R: tl.constexpr
):
    """Write per token a key that at least ``k`` columns reach, and its largest; needs ``k <= SLOTS``."""
    offs_r = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    mask_r = offs_r < num_rows
    source = offs_r[:, None] * SLOTS + tl.arange(0, SLOTS)[None, :]
    maxima = tl.load(maxima_ptr + source, mask=mask_r[:, None], other=LOWEST_KEY)
    tl.store(bound_ptr + offs_r, row_threshold(maxima, k), mask=mask_r)
    tl.store(peak_ptr + offs_r, tl.max(maxima, axis=1), mask=mask_r)


@triton.jit
def knn_dictionary_collect_kernel(
    x_ptr, column_ptr, region_ptr, bound_ptr, found_ptr, count_ptr,
    N, C, num_groups,
    SIMILARITY: tl.constexpr, HAS_REGIONS: tl.constexpr, FORCE_SELF: tl.constexpr, SLOTS: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Write per token the first ``SLOTS`` columns that reach its bound, ascending, and count them all.

    A key and its column are one int64: two stores would hold twice as many addresses in registers.
    """
    num_tiles = tl.cdiv(N, BLOCK_R)
    pid = tl.program_id(0)
    i_b = (pid // num_tiles).to(tl.int64)
    offs_r = (pid % num_tiles) * BLOCK_R + tl.arange(0, BLOCK_R)
    place, mask_r = i_b * N + offs_r, offs_r < N
    x_ptr += i_b * N * C
    if SIMILARITY != "dot":
        column_ptr += i_b * N
    if HAS_REGIONS:
        region_ptr += (i_b % num_groups) * N
    bound = tl.load(bound_ptr + place, mask=mask_r, other=0)
    count = tl.zeros([BLOCK_R], dtype=tl.int32)
    for start_n in tl.range(0, N, BLOCK_N):
        offs_n = start_n + tl.arange(0, BLOCK_N)
        keys = pair_keys(
            x_ptr, column_ptr, region_ptr, offs_r, offs_n, N, C,
            SIMILARITY, HAS_REGIONS, FORCE_SELF, BLOCK_R, BLOCK_N, BLOCK_C,
        )  # fmt: skip
        reached = ((keys >= bound[:, None]) & (keys > LOWEST_KEY)).to(tl.int32)
        slot = count[:, None] + tl.cumsum(reached, axis=1) - 1
        mask = (reached > 0) & (slot < SLOTS) & mask_r[:, None]
        pairs = (keys.to(tl.int64) << 32) | offs_n[None, :]
        tl.store(found_ptr + place[:, None] * SLOTS + slot, pairs, mask=mask)
        count += tl.sum(reached, axis=1)
    tl.store(count_ptr + place, count, mask=mask_r)


@triton.jit
def _is_settled(count, bound, k, SLOTS: tl.constexpr):
    """Whether what was written down holds the best ``k``, or all there are if they are fewer."""
    return (count <= SLOTS) & ((count >= k) | (bound == LOWEST_KEY))


@triton.jit
def knn_dictionary_choose_kernel(
    bound_ptr, found_ptr, count_ptr, index_ptr,
    num_rows, k,
    SLOTS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Write the lists of ``BLOCK_R`` tokens from what was written down for them."""
    offs_r = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    mask_r = offs_r < num_rows
    count = tl.load(count_ptr + offs_r, mask=mask_r, other=0)
    bound = tl.load(bound_ptr + offs_r, mask=mask_r, other=0)
    offs_f = tl.arange(0, SLOTS)
    written = mask_r[:, None] & (offs_f[None, :] < count[:, None])
    source = offs_r[:, None] * SLOTS + offs_f[None, :]
    pairs = tl.load(found_ptr + source, mask=written, other=0)
    keys = tl.where(written, (pairs >> 32).to(tl.int32), LOWEST_KEY)
    columns = pairs.to(tl.int32)  # the lower half
    settled = mask_r & _is_settled(count, bound, k, SLOTS)
    store_best(keys, columns, index_ptr + offs_r * k, settled, k, BLOCK_R, BLOCK_K)


@triton.jit
def knn_dictionary_exact_kernel(
    x_ptr, column_ptr, region_ptr, bound_ptr, peak_ptr, count_ptr, index_ptr,
    N, C, k, num_groups,
    SIMILARITY: tl.constexpr, HAS_REGIONS: tl.constexpr, FORCE_SELF: tl.constexpr, SLOTS: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Write the lists of those of ``BLOCK_R`` tokens that are not settled."""
    num_tiles = tl.cdiv(N, BLOCK_R)
    pid = tl.program_id(0)
    i_b = (pid // num_tiles).to(tl.int64)
    offs_r = (pid % num_tiles) * BLOCK_R + tl.arange(0, BLOCK_R)
    place, mask_r = i_b * N + offs_r, offs_r < N
    bound = tl.load(bound_ptr + place, mask=mask_r, other=0)
    count = tl.load(count_ptr + place, mask=mask_r, other=0)
    todo = mask_r & (_is_settled(count, bound, k, SLOTS) == 0)
    if tl.max(todo.to(tl.int32), axis=0) > 0:
        x_ptr += i_b * N * C
        if SIMILARITY != "dot":
            column_ptr += i_b * N
        if HAS_REGIONS:
            region_ptr += (i_b % num_groups) * N
        peak = tl.load(peak_ptr + place, mask=mask_r, other=0)
        threshold, free = _exact_threshold(
            x_ptr, column_ptr, region_ptr, offs_r, todo, bound, peak, N, C, k,
            SIMILARITY, HAS_REGIONS, FORCE_SELF, BLOCK_R, BLOCK_N, BLOCK_C,
        )  # fmt: skip
        row_ptr = index_ptr + place * k
        taken = tl.zeros([BLOCK_R], dtype=tl.int32)
        ties = tl.zeros([BLOCK_R], dtype=tl.int32)
        for start_n in tl.range(0, N, BLOCK_N):
            offs_n = start_n + tl.arange(0, BLOCK_N)
            keys = pair_keys(
                x_ptr, column_ptr, region_ptr, offs_r, offs_n, N, C,
                SIMILARITY, HAS_REGIONS, FORCE_SELF, BLOCK_R, BLOCK_N, BLOCK_C,
            )  # fmt: skip
            tied = ((keys == threshold[:, None]) & (keys > LOWEST_KEY)).to(tl.int32)
            rank = ties[:, None] + tl.cumsum(tied, axis=1)
            chosen = ((keys > threshold[:, None]) | ((tied > 0) & (rank <= free[:, None]))).to(tl.int32)
            slot = taken[:, None] + tl.cumsum(chosen, axis=1) - 1
            mask = (chosen > 0) & (slot < k) & todo[:, None]
            tl.store(row_ptr[:, None] + slot, tl.broadcast_to(offs_n[None, :], [BLOCK_R, BLOCK_N]), mask=mask)
            taken += tl.sum(chosen, axis=1)
            ties += tl.sum(tied, axis=1)
        fill_unused(row_ptr, todo, taken, k, BLOCK_R, BLOCK_K)


@triton.jit
def _exact_threshold(
    x_ptr, column_ptr, region_ptr, offs_r, todo, bound, peak, N, C, k,
    SIMILARITY: tl.constexpr, HAS_REGIONS: tl.constexpr, FORCE_SELF: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Return per row the ``k``-th largest key, and how many columns that equal it are chosen."""
    low = tl.full([BLOCK_R], LOWEST_KEY, dtype=tl.int64)  # reached by all
    high = tl.full([BLOCK_R], SELF_KEY + 1, dtype=tl.int64)  # reached by none
    free = tl.full([BLOCK_R], 0, dtype=tl.int32) + k
    step = 0
    while tl.max(tl.where(todo, high - low, 0), axis=0) > 1:
        # what the first pass found comes first: rows of one value need no more
        middle = low + ((high - low) >> 1)
        middle = tl.where(step == 0, bound.to(tl.int64), tl.where(step == 1, peak.to(tl.int64) + 1, middle))
        middle = tl.minimum(tl.maximum(middle, low + 1), high - 1)
        count = tl.zeros([BLOCK_R], dtype=tl.int32)
        for start_n in tl.range(0, N, BLOCK_N):
            offs_n = start_n + tl.arange(0, BLOCK_N)
            keys = pair_keys(
                x_ptr, column_ptr, region_ptr, offs_r, offs_n, N, C,
                SIMILARITY, HAS_REGIONS, FORCE_SELF, BLOCK_R, BLOCK_N, BLOCK_C,
            )  # fmt: skip
            count += tl.sum((keys >= middle.to(tl.int32)[:, None]).to(tl.int32), axis=1)
        is_open = high - low > 1
        low = tl.where(is_open & (count >= k), middle, low)
        # with exactly k columns from here on, all of them are chosen
        high = tl.where(is_open & (count <= k), tl.where(count == k, middle + 1, middle), high)
        free = tl.where(is_open & (count <= k), tl.where(count == k, k, k - count), free)
        step += 1
    return low.to(tl.int32), free
