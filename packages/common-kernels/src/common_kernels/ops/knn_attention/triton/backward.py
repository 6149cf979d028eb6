# SPDX-License-Identifier: Apache-2.0
"""Backward kernels: no atomics, every sum in a fixed order, so that repeats agree bit for bit.

With ``P = exp2(S - lse)`` on the listed pairs and 0 elsewhere, ``delta = rowsum(dO * O)`` and
``dS = P * (dO V^T - delta)``: ``dV = P^T dO``, ``dQ = scale * dS K``, ``dK = scale * dS^T Q`` and
``dbias = sum over windows of dS``. Each kernel recomputes ``P`` and ``dS`` for the result that it owns.
"""

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
def knn_attention_bwd_delta_kernel(
    out_ptr, dout_ptr, delta_ptr,
    stride_ob, stride_oh, stride_on, stride_od,
    heads, N,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Write ``delta`` of one row tile of one head."""
    num_tiles = tl.cdiv(N, BLOCK_M)
    pid = tl.program_id(0)
    i_bh = (pid // num_tiles).to(tl.int64)
    offs_m = (pid % num_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)
    dout_ptr += (i_bh // heads) * stride_ob + (i_bh % heads) * stride_oh
    out = load_rows(out_ptr + i_bh * N * HEAD_DIM, offs_m, N, HEAD_DIM, 1, HEAD_DIM, BLOCK_D)
    dout = load_rows(dout_ptr, offs_m, N, stride_on, stride_od, HEAD_DIM, BLOCK_D)
    delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), axis=1)
    tl.store(delta_ptr + i_bh * N + offs_m, delta, mask=offs_m < N)


@triton.jit
def _load_row_terms(lse_ptr, delta_ptr, offs_m, N):
    """Load ``lse`` and ``delta``; a row of no weight gets an infinite ``lse``, so that exp2 gives 0."""
    lse = tl.load(lse_ptr + offs_m, mask=offs_m < N, other=float("inf"))
    delta = tl.load(delta_ptr + offs_m, mask=offs_m < N, other=0.0)
    return tl.where(lse == float("-inf"), float("inf"), lse), delta


@triton.jit
def _sum_dq(
    q, dout, lse, delta, k_ptr, v_ptr, bits_ptr, bias_ptr, offs_m, N, M, num_words,
    stride_kn, stride_kd, stride_vn, stride_vd, stride_bias_n, stride_bias_m, scale_log2,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    HAS_BIAS: tl.constexpr, SKIP_EMPTY: tl.constexpr, CONTAIN: tl.constexpr,
):  # fmt: skip
    dq = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    for start_n in tl.range(0, M, BLOCK_N, num_stages=1 if CONTAIN else None):
        listed, any_listed = load_listed(bits_ptr, offs_m, N, start_n, num_words, BLOCK_M, BLOCK_N)
        if (not SKIP_EMPTY) or any_listed:
            offs_n = start_n + tl.arange(0, BLOCK_N)
            k = load_rows(k_ptr, offs_n, M, stride_kn, stride_kd, HEAD_DIM, BLOCK_D)
            v = load_rows(v_ptr, offs_n, M, stride_vn, stride_vd, HEAD_DIM, BLOCK_D)
            logits = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2  # (BLOCK_M, BLOCK_N)
            if HAS_BIAS:
                logits += load_bias(bias_ptr, offs_m, offs_n, N, M, stride_bias_n, stride_bias_m)
            dweights = tl.dot(dout, tl.trans(v), input_precision="ieee")
            dlogits = tl.exp2(logits - lse[:, None]) * (dweights - delta[:, None])
            dlogits = tl.where(listed, dlogits, 0.0)
            dq = add_dot(dq, dlogits, listed, k, CONTAIN)
    return dq


@triton.jit
def knn_attention_bwd_dq_kernel(
    q_ptr, k_ptr, v_ptr, bits_ptr, bias_ptr, dout_ptr, lse_ptr, delta_ptr, dq_ptr,
    stride_qb, stride_qh, stride_qn, stride_qd,
    stride_kb, stride_kh, stride_kn, stride_kd,
    stride_vb, stride_vh, stride_vn, stride_vd,
    stride_ob, stride_oh, stride_on, stride_od,
    stride_bias_h, stride_bias_n, stride_bias_m,
    heads, N, M, num_words, scale_log2, scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, HAS_BIAS: tl.constexpr, SKIP_EMPTY: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Write ``dQ`` of one row tile of one head."""
    num_tiles = tl.cdiv(N, BLOCK_M)
    pid = tl.program_id(0)
    i_bh = (pid // num_tiles).to(tl.int64)
    i_b, i_h = i_bh // heads, i_bh % heads
    offs_m = (pid % num_tiles) * BLOCK_M + tl.arange(0, BLOCK_M)

    q_ptr += i_b * stride_qb + i_h * stride_qh
    k_ptr += i_b * stride_kb + i_h * stride_kh
    v_ptr += i_b * stride_vb + i_h * stride_vh
    dout_ptr += i_b * stride_ob + i_h * stride_oh
    bits_ptr += i_b * N * num_words
    if HAS_BIAS:
        bias_ptr += i_h * stride_bias_h
    lse, delta = _load_row_terms(lse_ptr + i_bh * N, delta_ptr + i_bh * N, offs_m, N)
    q = load_rows(q_ptr, offs_m, N, stride_qn, stride_qd, HEAD_DIM, BLOCK_D)
    dout = load_rows(dout_ptr, offs_m, N, stride_on, stride_od, HEAD_DIM, BLOCK_D)
    dq = _sum_dq(
        q, dout, lse, delta, k_ptr, v_ptr, bits_ptr, bias_ptr, offs_m, N, M, num_words,
        stride_kn, stride_kd, stride_vn, stride_vd, stride_bias_n, stride_bias_m, scale_log2,
        HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, HAS_BIAS, SKIP_EMPTY, CONTAIN=False,
    )  # fmt: skip
    if has_non_finite(dq):
        dq = _sum_dq(
            q, dout, lse, delta, k_ptr, v_ptr, bits_ptr, bias_ptr, offs_m, N, M, num_words,
            stride_kn, stride_kd, stride_vn, stride_vd, stride_bias_n, stride_bias_m, scale_log2,
            HEAD_DIM, BLOCK_D, BLOCK_M, 32, HAS_BIAS, SKIP_EMPTY, CONTAIN=True,
        )  # fmt: skip
    store_rows(dq_ptr + i_bh * N * HEAD_DIM, dq * scale, offs_m, N, HEAD_DIM, BLOCK_D)


@triton.jit
def _sum_dkv(
    k, v, q_ptr, dout_ptr, lse_ptr, delta_ptr, bits_ptr, bias_ptr, offs_n, N, M, num_words,
    stride_qn, stride_qd, stride_on, stride_od, stride_bias_n, stride_bias_m, scale_log2,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    HAS_BIAS: tl.constexpr, SKIP_EMPTY: tl.constexpr, CONTAIN: tl.constexpr,
):  # fmt: skip
    dk = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    for start_m in tl.range(0, N, BLOCK_M, num_stages=1 if CONTAIN else None):
        # keys are the rows here: every tile stands transposed, as the bits do
        listed, any_listed = load_listed(bits_ptr, offs_n, M, start_m, num_words, BLOCK_N, BLOCK_M)
        if (not SKIP_EMPTY) or any_listed:
            offs_m = start_m + tl.arange(0, BLOCK_M)
            lse, delta = _load_row_terms(lse_ptr, delta_ptr, offs_m, N)
            q = load_rows(q_ptr, offs_m, N, stride_qn, stride_qd, HEAD_DIM, BLOCK_D)
            dout = load_rows(dout_ptr, offs_m, N, stride_on, stride_od, HEAD_DIM, BLOCK_D)
            logits = tl.dot(k, tl.trans(q), input_precision="ieee") * scale_log2  # (BLOCK_N, BLOCK_M)
            if HAS_BIAS:
                logits += load_bias(bias_ptr, offs_n, offs_m, M, N, stride_bias_m, stride_bias_n)
            weights = tl.where(listed, tl.exp2(logits - lse[None, :]), 0.0)
            dv = add_dot(dv, weights, listed, dout, CONTAIN)
            dweights = tl.dot(v, tl.trans(dout), input_precision="ieee")
            dlogits = tl.where(listed, weights * (dweights - delta[None, :]), 0.0)
            dk = add_dot(dk, dlogits, listed, q, CONTAIN)
    return dk, dv


@triton.jit
def knn_attention_bwd_dkv_kernel(
    q_ptr, k_ptr, v_ptr, bits_ptr, bias_ptr, dout_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr,
    stride_qb, stride_qh, stride_qn, stride_qd,
    stride_kb, stride_kh, stride_kn, stride_kd,
    stride_vb, stride_vh, stride_vn, stride_vd,
    stride_ob, stride_oh, stride_on, stride_od,
    stride_bias_h, stride_bias_n, stride_bias_m,
    heads, N, M, num_words, scale_log2, scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, HAS_BIAS: tl.constexpr, SKIP_EMPTY: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Write ``dK`` and ``dV`` of one tile of keys of one head; ``bits_ptr`` holds the transposed bits."""
    num_tiles = tl.cdiv(M, BLOCK_N)
    pid = tl.program_id(0)
    i_bh = (pid // num_tiles).to(tl.int64)
    i_b, i_h = i_bh // heads, i_bh % heads
    offs_n = (pid % num_tiles) * BLOCK_N + tl.arange(0, BLOCK_N)

    q_ptr += i_b * stride_qb + i_h * stride_qh
    k_ptr += i_b * stride_kb + i_h * stride_kh
    v_ptr += i_b * stride_vb + i_h * stride_vh
    dout_ptr += i_b * stride_ob + i_h * stride_oh
    lse_ptr += i_bh * N
    delta_ptr += i_bh * N
    bits_ptr += i_b * M * num_words
    if HAS_BIAS:
        bias_ptr += i_h * stride_bias_h
    k = load_rows(k_ptr, offs_n, M, stride_kn, stride_kd, HEAD_DIM, BLOCK_D)
    v = load_rows(v_ptr, offs_n, M, stride_vn, stride_vd, HEAD_DIM, BLOCK_D)
    dk, dv = _sum_dkv(
        k, v, q_ptr, dout_ptr, lse_ptr, delta_ptr, bits_ptr, bias_ptr, offs_n, N, M, num_words,
        stride_qn, stride_qd, stride_on, stride_od, stride_bias_n, stride_bias_m, scale_log2,
        HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, HAS_BIAS, SKIP_EMPTY, CONTAIN=False,
    )  # fmt: skip
    if has_non_finite(dk) or has_non_finite(dv):
        dk, dv = _sum_dkv(
            k, v, q_ptr, dout_ptr, lse_ptr, delta_ptr, bits_ptr, bias_ptr, offs_n, N, M, num_words,
            stride_qn, stride_qd, stride_on, stride_od, stride_bias_n, stride_bias_m, scale_log2,
            HEAD_DIM, BLOCK_D, 32, BLOCK_N, HAS_BIAS, SKIP_EMPTY, CONTAIN=True,
        )  # fmt: skip
    store_rows(dk_ptr + i_bh * M * HEAD_DIM, dk * scale, offs_n, M, HEAD_DIM, BLOCK_D)
    store_rows(dv_ptr + i_bh * M * HEAD_DIM, dv, offs_n, M, HEAD_DIM, BLOCK_D)


@triton.jit
def knn_attention_bwd_dbias_kernel(
    q_ptr, k_ptr, v_ptr, bits_ptr, bias_ptr, dout_ptr, lse_ptr, delta_ptr, dbias_ptr,
    stride_qb, stride_qh, stride_qn, stride_qd,
    stride_kb, stride_kh, stride_kn, stride_kd,
    stride_vb, stride_vh, stride_vn, stride_vd,
    stride_ob, stride_oh, stride_on, stride_od,
    stride_bias_h, stride_bias_n, stride_bias_m,
    B, heads, N, M, num_words, scale_log2,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Write one tile of ``dbias`` of one head."""
    num_tiles_n = tl.cdiv(M, BLOCK_N)
    num_tiles = tl.cdiv(N, BLOCK_M) * num_tiles_n
    pid = tl.program_id(0)
    i_h = (pid // num_tiles).to(tl.int64)
    i_tile = pid % num_tiles
    offs_m = (i_tile // num_tiles_n) * BLOCK_M + tl.arange(0, BLOCK_M)
    start_n = (i_tile % num_tiles_n) * BLOCK_N
    offs_n = start_n + tl.arange(0, BLOCK_N)

    bias_ptr += i_h * stride_bias_h
    bias = load_bias(bias_ptr, offs_m, offs_n, N, M, stride_bias_n, stride_bias_m)
    dbias = tl.zeros([BLOCK_M, BLOCK_N], dtype=tl.float32)
    # the windows share the bias: one program adds them up in order
    for b in tl.range(0, B):
        i_b = tl.cast(b, tl.int64)
        i_bh = i_b * heads + i_h
        listed, _ = load_listed(
            bits_ptr + i_b * N * num_words, offs_m, N, start_n, num_words, BLOCK_M, BLOCK_N
        )
        lse, delta = _load_row_terms(lse_ptr + i_bh * N, delta_ptr + i_bh * N, offs_m, N)
        q = load_rows(
            q_ptr + i_b * stride_qb + i_h * stride_qh, offs_m, N, stride_qn, stride_qd, HEAD_DIM, BLOCK_D
        )
        k = load_rows(
            k_ptr + i_b * stride_kb + i_h * stride_kh, offs_n, M, stride_kn, stride_kd, HEAD_DIM, BLOCK_D
        )
        v = load_rows(
            v_ptr + i_b * stride_vb + i_h * stride_vh, offs_n, M, stride_vn, stride_vd, HEAD_DIM, BLOCK_D
        )
        dout = load_rows(
            dout_ptr + i_b * stride_ob + i_h * stride_oh, offs_m, N, stride_on, stride_od, HEAD_DIM, BLOCK_D
        )
        logits = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2 + bias  # (BLOCK_M, BLOCK_N)
        dweights = tl.dot(dout, tl.trans(v), input_precision="ieee")
        dlogits = tl.exp2(logits - lse[:, None]) * (dweights - delta[:, None])
        dbias += tl.where(listed, dlogits, 0.0)
    offsets = i_h * N * M + offs_m.to(tl.int64)[:, None] * M + offs_n[None, :]
    mask = (offs_m < N)[:, None] & (offs_n < M)[None, :]
    tl.store(dbias_ptr + offsets, dbias.to(dbias_ptr.dtype.element_ty), mask=mask)
