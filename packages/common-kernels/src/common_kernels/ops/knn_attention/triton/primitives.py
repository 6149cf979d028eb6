# SPDX-License-Identifier: Apache-2.0
"""Device functions that the forward and the backward kernels share."""

# the kernels' arguments are pointers and traced values, which the type system cannot name
# pyright: basic, reportArgumentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_rows(ptr, offs_row, num_rows, stride_row, stride_d, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Load whole rows of ``HEAD_DIM`` elements, zero beyond the last row and the last element."""
    offs_d = tl.arange(0, BLOCK_D)
    # a window can span more than 2^31 elements when its rows are strided
    offsets = offs_row.to(tl.int64)[:, None] * stride_row + offs_d[None, :] * stride_d
    mask = (offs_row < num_rows)[:, None] & (offs_d < HEAD_DIM)[None, :]
    return tl.load(ptr + offsets, mask=mask, other=0.0)  # (rows, BLOCK_D)


@triton.jit
def store_rows(ptr, rows, offs_row, num_rows, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Store rows into a contiguous ``(num_rows, HEAD_DIM)`` matrix."""
    offs_d = tl.arange(0, BLOCK_D)
    offsets = offs_row.to(tl.int64)[:, None] * HEAD_DIM + offs_d[None, :]
    mask = (offs_row < num_rows)[:, None] & (offs_d < HEAD_DIM)[None, :]
    tl.store(ptr + offsets, rows.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def load_listed(
    bits_ptr, offs_row, num_rows, start_col, num_words, BLOCK_ROW: tl.constexpr, BLOCK_COL: tl.constexpr
):
    """Unpack one tile of a packed bit matrix whose rows have ``num_words`` words.

    Returns the tile, (BLOCK_ROW, BLOCK_COL), and whether any of its bits is set.
    """
    offs_col = tl.arange(0, BLOCK_COL)
    row_ptr = bits_ptr + offs_row.to(tl.int64) * num_words
    words = tl.zeros([BLOCK_ROW, BLOCK_COL], dtype=tl.int32)
    union = tl.zeros([BLOCK_ROW], dtype=tl.int32)
    # one register per row and 32 columns, spread by broadcast: a tile of words would need a layout change
    for i in tl.static_range(BLOCK_COL // 32):
        i_word = start_col // 32 + i
        num_readable = tl.where(i_word < num_words, num_rows, 0)
        word = tl.load(row_ptr + i_word, mask=offs_row < num_readable, other=0)
        words = tl.where((offs_col // 32 == i)[None, :], word[:, None], words)
        union = union | word
    listed = ((words >> (offs_col % 32)[None, :]) & 1) != 0
    return listed, tl.max((union != 0).to(tl.int32), axis=0) > 0


@triton.jit
def has_non_finite(x):
    """Whether a tile holds a NaN or an infinity: only those differ from themselves when subtracted."""
    bad = ((x - x) != 0).to(tl.int32)
    return tl.max(tl.max(bad, axis=1), axis=0) > 0


@triton.jit
def contained_dot(weights, listed, x):
    """Multiply ``weights @ x`` in fp32 such that a NaN or infinity of ``x`` meets only listed weights.

    A matrix product would spread it: the weight of an unlisted pair is 0, and 0 times infinity is NaN.
    So the finite part is multiplied alone, and a result that lists anything else becomes NaN.
    """
    wide = x.to(tl.float32)
    finite = (wide - wide) == 0
    out = tl.dot(weights.to(x.dtype), tl.where(finite, wide, 0.0).to(x.dtype), input_precision="ieee")
    count = tl.dot(listed.to(x.dtype), (~finite).to(x.dtype), input_precision="ieee")
    return tl.where(count > 0, float("nan"), out)


@triton.jit
def add_dot(acc, weights, listed, x, CONTAIN: tl.constexpr):
    """Return ``acc + weights @ x``, fp32; with ``CONTAIN`` as in :func:`contained_dot`."""
    if CONTAIN:
        return acc + contained_dot(weights, listed, x)
    else:
        return tl.dot(weights.to(x.dtype), x, acc, input_precision="ieee")


@triton.jit
def load_bias(bias_ptr, offs_m, offs_n, N, M, stride_m, stride_n):
    """Load one tile of the additive bias in base-2 units, fp32."""
    offsets = offs_m.to(tl.int64)[:, None] * stride_m + offs_n.to(tl.int64)[None, :] * stride_n
    mask = (offs_m < N)[:, None] & (offs_n < M)[None, :]
    bias = tl.load(bias_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    return bias * 1.4426950408889634  # log2(e)
