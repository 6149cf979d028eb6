# SPDX-License-Identifier: Apache-2.0
"""Public call of attention over listed keys."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from common_kernels._dispatch import Implementation, choose
from common_kernels.ops.knn_attention.reference import knn_attention_reference
from common_kernels.ops.knn_attention.sdpa import knn_attention_sdpa
from common_kernels.ops.knn_attention.triton import knn_attention_triton, not_auto_triton, why_not_triton
from common_kernels.ops.knn_dictionary import KNNDictionary

Backend = Literal["auto", "reference", "sdpa", "triton"]


def _fits(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> None:
    return None


IMPLEMENTATIONS = (
    Implementation("triton", why_not_triton, knn_attention_triton, not_auto_triton),
    Implementation("sdpa", _fits, knn_attention_sdpa),
    Implementation("reference", _fits, knn_attention_reference),
)


def knn_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dictionary: KNNDictionary,
    *,
    bias: Tensor | None = None,
    scale: float | Tensor | None = None,
    cosine: bool = False,
    backend: Backend = "auto",
) -> Tensor:
    """Let every query attend to the keys that the dictionary lists for it.

    Args:
        q: Queries, ``(B, heads, N, head_dim)``, fp32, fp64, fp16 or bf16.
        k: Keys, ``(B, heads, M, head_dim)``, dtype and device of ``q``.
        v: Values, same shape, dtype and device as ``k``.
        dictionary: The listed keys, shared by the heads.
        bias: Added to the logits, ``(heads, N, M)``, shared by the windows.
        scale: Factor on the logits: a number, or ``(heads,)`` for one per head. ``None`` means
            ``head_dim ** -0.5``, or 1 with ``cosine``.
        cosine: Whether ``q`` and ``k`` are first divided by their l2 norms.
        backend: Implementation; ``"auto"`` picks by shape and device.

    Returns:
        ``(B, heads, N, head_dim)`` in the dtype of ``q``. A query with an empty list gets 0.

    Raises:
        ValueError: If shapes, dtypes or devices disagree, or no backend has that name.
        BackendUnavailableError: If the named backend cannot run this call.

    Source: SemanIR, arXiv 2405.20008, Sec. 3: attention restricted to the key-semantic dictionary.
        Cosine logits with one scale per head follow Swin V2 (arXiv 2111.09883, Eq. 2).
    """
    if cosine:
        q = F.normalize(q.float(), dim=-1, eps=1e-12).to(q.dtype)
        k = F.normalize(k.float(), dim=-1, eps=1e-12).to(k.dtype)
    if scale is None:
        scale = 1.0 if cosine else q.shape[-1] ** -0.5
    if isinstance(scale, Tensor):
        q = q * scale.to(q.dtype).view(-1, 1, 1)
        scale = 1.0
    chosen = choose("knn_attention", backend, IMPLEMENTATIONS, q, k, v, dictionary, bias, scale)
    return chosen.run(q, k, v, dictionary, bias, scale)
