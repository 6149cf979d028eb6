# SPDX-License-Identifier: Apache-2.0
"""The dictionary of short windows: a program keeps whole rows of scores in registers."""

# the kernel's arguments are pointers and traced values, which the type system cannot name
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
from __future__ import annotations

import triton
import triton.language as tl

from common_kernels.ops.knn_dictionary.triton.scores import pair_keys, store_best


@triton.jit
def knn_dictionary_rows_kernel(
    x_ptr, column_ptr, region_ptr, index_ptr,
    N, C, k, num_groups,
    SIMILARITY: tl.constexpr, HAS_REGIONS: tl.constexpr, FORCE_SELF: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Write the lists of ``BLOCK_R`` tokens of one window of at most ``BLOCK_N``, in ascending order."""
    num_tiles = tl.cdiv(N, BLOCK_R)
    pid = tl.program_id(0)
    i_b = (pid // num_tiles).to(tl.int64)
    offs_r = (pid % num_tiles) * BLOCK_R + tl.arange(0, BLOCK_R)
    offs_n = tl.arange(0, BLOCK_N)
    if HAS_REGIONS:
        region_ptr += (i_b % num_groups) * N
    keys = pair_keys(
        x_ptr + i_b * N * C, column_ptr + i_b * N if SIMILARITY != "dot" else None, region_ptr,
        offs_r, offs_n, N, C, SIMILARITY, HAS_REGIONS, FORCE_SELF, BLOCK_R, BLOCK_N, BLOCK_C,
    )  # fmt: skip
    columns = tl.broadcast_to(offs_n[None, :], [BLOCK_R, BLOCK_N])
    store_best(keys, columns, index_ptr + (i_b * N + offs_r) * k, offs_r < N, k, BLOCK_R, BLOCK_K)
