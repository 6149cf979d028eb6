# SPDX-License-Identifier: Apache-2.0
"""Forward kernel: online softmax over tiles of all keys, masked by the packed dictionary."""

# the kernels' arguments are pointers and traced values, which the type system cannot name
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
from __future__ import annotations

import triton
import triton.language as tl

from common_kernels.ops.knn_attention.triton.primitives import (
    add_dot,
    has_non_finite,
    load_bias,
    load_listed,
    load_rows,
    store_rows,
)


@triton.jit
def _attend(
    q, k_ptr, v_ptr, bits_ptr, bias_ptr, offs_m, N, M, num_words,
    stride_kn, stride_kd, stride_vn, stride_vd, stride_bias_n, stride_bias_m, scale_log2,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    HAS_BIAS: tl.constexpr, SKIP_EMPTY: tl.constexpr, CONTAIN: tl.constexpr,
):  # fmt: skip
    """Walk the keys of one row tile; return the unnormalised output, its sum and its maximum."""
    acc = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    row_sum = tl.zeros([BLOCK_M], dtype=tl.float32)
    row_max = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    for start_n in tl.range(0, M, BLOCK_N, num_stages=1 if CONTAIN else None):
        listed, any_listed = load_listed(bits_ptr, offs_m, N, start_n, num_words, BLOCK_M, BLOCK_N)
        # a branch keeps the loads below out of the software pipeline: worth it only if many tiles are empty
        if (not SKIP_EMPTY) or any_listed:
            offs_n = start_n + tl.arange(0, BLOCK_N)
            k = load_rows(k_ptr, offs_n, M, stride_kn, stride_kd, HEAD_DIM, BLOCK_D)
            logits = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2  # (BLOCK_M, BLOCK_N)
            if HAS_BIAS:
                logits += load_bias(bias_ptr, offs_m, offs_n, N, M, stride_bias_n, stride_bias_m)
            logits = tl.where(listed, logits, float("-inf"))
            new_max = tl.maximum(row_max, tl.max(logits, axis=1))
            # nothing listed so far: any finite reference keeps exp2(-inf - reference) at 0
            reference = tl.where(new_max == float("-inf"), 0.0, new_max)
            weights = tl.exp2(logits - reference[:, None])
            rescale = tl.exp2(row_max - reference)
            row_sum = row_sum * rescale + tl.sum(weights, axis=1)
            v = load_rows(v_ptr, offs_n, M, stride_vn, stride_vd, HEAD_DIM, BLOCK_D)
            acc = add_dot(acc * rescale[:, None], weights, listed, v, CONTAIN)
            row_max = new_max
    return acc, row_sum, row_max


@triton.jit
def knn_attention_fwd_kernel(
    q_ptr, k_ptr, v_ptr, bits_ptr, bias_ptr, out_ptr, lse_ptr,
    stride_qb, stride_qh, stride_qn, stride_qd,
    stride_kb, stride_kh, stride_kn, stride_kd,
    stride_vb, stride_vh, stride_vn, stride_vd,
    stride_bias_h, stride_bias_n, stride_bias_m,
    heads, N, M, num_words, scale_log2,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, HAS_BIAS: tl.constexpr, STORE_LSE: tl.constexpr,
    SKIP_EMPTY: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Write the output, and on demand ``lse``, of one row tile of one head."""
    # row tiles run fastest, then heads: neighbours share K and V, then the bits, in L2
    num_tiles = tl.cdiv(N, BLOCK_M)
    pid = tl.program_id(0)
    i_bh = (pid // num_tiles).to(tl.int64)
    i_b, i_h = i_bh // heads, i_bh % heads
    offs_m = (pid % num_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)

    q_ptr += i_b * stride_qb + i_h * stride_qh
    k_ptr += i_b * stride_kb + i_h * stride_kh
    v_ptr += i_b * stride_vb + i_h * stride_vh
    bits_ptr += i_b * N * num_words
    if HAS_BIAS:
        bias_ptr += i_h * stride_bias_h
    q = load_rows(q_ptr, offs_m, N, stride_qn, stride_qd, HEAD_DIM, BLOCK_D)  # (BLOCK_M, BLOCK_D)
    acc, row_sum, row_max = _attend(
        q, k_ptr, v_ptr, bits_ptr, bias_ptr, offs_m, N, M, num_words,
        stride_kn, stride_kd, stride_vn, stride_vd, stride_bias_n, stride_bias_m, scale_log2,
        HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, HAS_BIAS, SKIP_EMPTY, CONTAIN=False,
    )  # fmt: skip
    # a non-finite value may have come through a weight of 0 from a key that its row does not list
    if has_non_finite(acc):
        acc, row_sum, row_max = _attend(
            q, k_ptr, v_ptr, bits_ptr, bias_ptr, offs_m, N, M, num_words,
            stride_kn, stride_kd, stride_vn, stride_vd, stride_bias_n, stride_bias_m, scale_log2,
            HEAD_DIM, BLOCK_D, BLOCK_M, 32, HAS_BIAS, SKIP_EMPTY, CONTAIN=True,
        )  # fmt: skip

    empty = row_sum == 0.0
    out = acc / tl.where(empty, 1.0, row_sum)[:, None]
    store_rows(out_ptr + i_bh * N * HEAD_DIM, out, offs_m, N, HEAD_DIM, BLOCK_D)
    if STORE_LSE:
        lse = tl.where(empty, float("-inf"), row_max + tl.log2(tl.where(empty, 1.0, row_sum)))
        tl.store(lse_ptr + i_bh * N + offs_m, lse, mask=offs_m < N)
