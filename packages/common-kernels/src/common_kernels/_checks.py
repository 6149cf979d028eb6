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
        TypeError: If ``dictionary`` is no :class:`KNNDictionary`, or the dtype is not a real floating one or
            differs between ``q``, ``k`` and ``v``.
        ValueError: If shapes or devices disagree, or ``head_dim`` is 0.
    """
    if not isinstance(dictionary, KNNDictionary):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(
            f"dictionary must be a KNNDictionary, got {type(dictionary).__name__}; "
            "KNNDictionary.from_index(index, num_keys) makes one of index lists"
        )
    # every property is read once: reading them is a good part of a small call's fixed cost
    dtype, device, shape, key_shape = q.dtype, q.device, q.shape, k.shape
    if not dtype.is_floating_point:
        raise TypeError(f"q must have a floating dtype, got {dtype}")
    if not dtype == k.dtype == v.dtype:
        raise TypeError(f"q, k and v must have one dtype, got {dtype}, {k.dtype} and {v.dtype}")
    if len(shape) != 4 or len(key_shape) != 4 or key_shape != v.shape:
        raise ValueError(
            "q must be (B, heads, N, head_dim), k and v (B, heads, M, head_dim), "
            f"got {tuple(shape)}, {tuple(key_shape)} and {tuple(v.shape)}"
        )
    B, heads, N, head_dim = shape
    key_B, key_heads, M, key_dim = key_shape
    if key_B != B or heads != key_heads or head_dim != key_dim:
        raise ValueError(f"q and k may differ in length only, got {tuple(shape)} and {tuple(key_shape)}")
    if not head_dim:
        raise ValueError(f"head_dim must be at least 1, got q of shape {tuple(shape)}")
    have = (*dictionary.index.shape[:2], dictionary.num_keys)
    if have != (B, N, M):
        raise ValueError(
            "the dictionary must be of these windows: it has (windows, queries, keys) = "
            f"{have}, q and k need {(B, N, M)}"
        )
    if not device == k.device == v.device == dictionary.device:
        raise ValueError(
            f"q, k, v and the dictionary must be on one device, "
            f"got {device}, {k.device}, {v.device} and {dictionary.device}"
        )
    if bias is not None:
        _check_bias(bias, (heads, N, M), device)
    if isinstance(scale, Tensor) and scale.shape not in ((), (heads,)):
        raise ValueError(f"scale must be a number or ({heads},), got shape {tuple(scale.shape)}")


def _check_bias(bias: Tensor, shape: tuple[int, int, int], device: torch.device) -> None:
    if tuple(bias.shape) != shape:
        raise ValueError(f"bias must be (heads, N, M) = {shape}, got {tuple(bias.shape)}")
    if bias.device != device:
        raise ValueError(f"bias must be on the device of q, got {bias.device} and {device}")
