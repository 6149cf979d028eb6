# SPDX-License-Identifier: Apache-2.0
"""Checks of the public operators' arguments: rule, what came, cure."""

from __future__ import annotations

import torch
from torch import Tensor

from common_kernels.ops.knn_dictionary.dictionary import KNNDictionary


def check_knn_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dictionary: KNNDictionary,
    bias: Tensor | None,
    scale: float | Tensor | None,
) -> None:
    """Check what :func:`common_kernels.knn_attention` is given.

    Raises:
        TypeError: If the dtype is not a real floating one or differs between ``q``, ``k`` and ``v``.
        ValueError: If shapes or devices disagree.
    """
    if not q.is_floating_point():
        raise TypeError(f"q must have a floating dtype, got {q.dtype}")
    if not q.dtype == k.dtype == v.dtype:
        raise TypeError(f"q, k and v must have one dtype, got {q.dtype}, {k.dtype} and {v.dtype}")
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape:
        raise ValueError(
            "q must be (B, heads, N, head_dim), k and v (B, heads, M, head_dim), "
            f"got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if (*q.shape[:2], q.shape[3]) != (*k.shape[:2], k.shape[3]):
        raise ValueError(f"q and k may differ in length only, got {tuple(q.shape)} and {tuple(k.shape)}")
    B, heads, N, _ = q.shape
    M = k.shape[2]
    have = (dictionary.batch_size, dictionary.num_queries, dictionary.num_keys)
    if have != (B, N, M):
        raise ValueError(
            "the dictionary must be of these windows: it has (windows, queries, keys) = "
            f"{have}, q and k need {(B, N, M)}"
        )
    if not q.device == k.device == v.device == dictionary.device:
        raise ValueError(
            f"q, k, v and the dictionary must be on one device, "
            f"got {q.device}, {k.device}, {v.device} and {dictionary.device}"
        )
    if bias is not None:
        _check_bias(bias, (heads, N, M), q.device)
    if isinstance(scale, Tensor) and scale.shape not in ((), (heads,)):
        raise ValueError(f"scale must be a number or ({heads},), got shape {tuple(scale.shape)}")


def _check_bias(bias: Tensor, shape: tuple[int, int, int], device: torch.device) -> None:
    if tuple(bias.shape) != shape:
        raise ValueError(f"bias must be (heads, N, M) = {shape}, got {tuple(bias.shape)}")
    if bias.device != device:
        raise ValueError(f"bias must be on the device of q, got {bias.device} and {device}")
