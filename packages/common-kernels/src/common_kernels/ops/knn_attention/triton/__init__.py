# SPDX-License-Identifier: Apache-2.0
"""Fused attention over listed keys in Triton: no ``N x M`` array, deterministic backward.

This file needs no Triton: it says whether a call can run here and loads the kernels when one does.
Every key tile is visited under the packed dictionary; a list of the columns that a row tile uses would
compact those tiles and enter where the kernels compute ``offs_n``.

Source: FlashAttention-2, arXiv 2307.08691, Alg. 1 and 2, with one bit per pair deciding what is
listed; the backward runs as two kernels without atomics instead of one with them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from common_kernels._triton import INTERPRETED, why_no_triton
from common_kernels.ops.knn_dictionary import KNNDictionary

__all__ = ["knn_attention_triton", "not_auto_triton", "why_not_triton"]

_MAX_HEAD_DIM = 128
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def why_not_triton(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> str | None:
    """Return why the kernels cannot run this call, or ``None``."""
    reason = why_no_triton(q)
    if reason is not None:
        return reason
    if q.dtype not in _DTYPES:
        return f"needs float16, bfloat16 or float32, got {q.dtype}"
    if q.shape[-1] > _MAX_HEAD_DIM:
        return f"needs head_dim of at most {_MAX_HEAD_DIM}, got {q.shape[-1]}"
    return None


def not_auto_triton(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> str | None:
    """Return why ``"auto"`` should prefer another backend although this one runs, or ``None``."""
    return "the kernels are interpreted" if INTERPRETED else None


def knn_attention_triton(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> Tensor:
    """Return ``(B, heads, N, head_dim)``, contiguous, in the dtype of ``q``.

    Logits, softmax and all sums are fp32; fp32 products are exact IEEE ones, not TF32. The weights and,
    in the backward, the gradients of the logits are rounded to the dtype of ``q`` before they meet the
    values. A NaN or infinity reaches only what lists it. Repeats agree bit for bit.
    """
    # pulls in triton, which not every machine has
    from common_kernels.ops.knn_attention.triton.registration import attend

    train = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (q, k, v, bias))
    # below one listed key in 16 many tiles have none, at least where similar tokens stand together
    skip_empty = dictionary.num_keys >= 2048 and 16 * dictionary.k <= dictionary.num_keys
    return attend(
        q, k, v, dictionary.bits(), dictionary.bits_transposed() if train else None, bias, scale,
        skip_empty=skip_empty,
    )  # fmt: skip
