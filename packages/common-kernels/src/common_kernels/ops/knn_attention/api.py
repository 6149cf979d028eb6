# SPDX-License-Identifier: Apache-2.0
"""Public call of attention over listed keys."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from common_kernels._checks import check_knn_attention
from common_kernels._dispatch import Implementation, choose, explain
from common_kernels.ops.knn_attention.chunked import knn_attention_chunked
from common_kernels.ops.knn_attention.csr import knn_attention_csr, why_not_csr
from common_kernels.ops.knn_attention.native import (
    knn_attention_native,
    not_auto_native,
    why_not_native,
)
from common_kernels.ops.knn_attention.reference import knn_attention_reference
from common_kernels.ops.knn_attention.sdpa import knn_attention_sdpa
from common_kernels.ops.knn_attention.triton import knn_attention_triton, not_auto_triton, why_not_triton
from common_kernels.ops.knn_dictionary import KNNDictionary

Backend = Literal["auto", "reference", "chunked", "sdpa", "csr", "native", "triton"]


def _runs(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> None:
    """Plain torch: runs on every device and dtype."""


def _not_auto_csr(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> str | None:
    # measured on two CPU cores, docs/common-kernels/benchmarks.md: below, the dense product is as fast
    if dictionary.num_keys < _CSR_MIN_KEYS:
        return f"below {_CSR_MIN_KEYS} keys dense is faster"
    train = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    ratio = _CSR_MIN_RATIO_TRAINING if train else _CSR_MIN_RATIO
    if bias is not None:  # the dense product adds it to its mask, and differentiates it, for all pairs
        ratio = _CSR_MIN_RATIO_BIAS
    if dictionary.k * ratio > dictionary.num_keys:
        return f"with more than 1 of {ratio} keys listed dense is faster"
    return None


def _not_auto_sdpa(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> str | None:
    if dictionary.num_keys > _SDPA_MAX_KEYS:
        return f"above {_SDPA_MAX_KEYS} keys a dense mask takes too much memory"
    return None


_CSR_MIN_KEYS = 512
_CSR_MIN_RATIO, _CSR_MIN_RATIO_TRAINING, _CSR_MIN_RATIO_BIAS = 8, 12, 4  # a backward gains less
_SDPA_MAX_KEYS = 8192

# in the order in which "auto" asks
IMPLEMENTATIONS = (
    Implementation("triton", why_not_triton, knn_attention_triton, not_auto_triton),
    Implementation("native", why_not_native, knn_attention_native, not_auto_native),
    Implementation("csr", why_not_csr, knn_attention_csr, _not_auto_csr),
    Implementation("sdpa", _runs, knn_attention_sdpa, _not_auto_sdpa),
    Implementation("chunked", _runs, knn_attention_chunked),
    Implementation("reference", _runs, knn_attention_reference),
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
        ``(B, heads, N, head_dim)`` in the dtype of ``q``. A query with an empty list gets 0, and so does one
        whose every logit is minus infinity.

    Raises:
        TypeError: If ``dictionary`` is no :class:`KNNDictionary`, such as a bare index tensor, or the dtypes
            disagree or are not floating.
        ValueError: If shapes or devices disagree, ``head_dim`` is 0, or no backend has that name.
        BackendUnavailableError: If the named backend cannot run this call.

    Source: SemanIR, arXiv 2405.20008, Sec. 3: attention restricted to the key-semantic dictionary.
        Cosine logits with one scale per head follow Swin V2 (arXiv 2111.09883, Eq. 2).
    """
    chosen, arguments = _prepare(q, k, v, dictionary, bias, scale, cosine, backend)
    return chosen.run(*arguments)


def explain_knn_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dictionary: KNNDictionary,
    *,
    bias: Tensor | None = None,
    scale: float | Tensor | None = None,
    cosine: bool = False,
) -> dict[str, str | None]:
    """Return each backend's reason against this call; ``auto`` takes the first ``None``."""
    _, arguments = _prepare(q, k, v, dictionary, bias, scale, cosine, "auto")
    return explain(IMPLEMENTATIONS, *arguments)


Chosen = Implementation[[Tensor, Tensor, Tensor, KNNDictionary, Tensor | None, float], Tensor]
Arguments = tuple[Tensor, Tensor, Tensor, KNNDictionary, Tensor | None, float]


def _prepare(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dictionary: KNNDictionary,
    bias: Tensor | None,
    scale: float | Tensor | None,
    cosine: bool,
    backend: str,
) -> tuple[Chosen, Arguments]:
    """Check, normalise and fold the scale into ``q``, so that every backend sees a plain call."""
    kind = q.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    check_knn_attention(q, k, v, dictionary, bias, scale)
    if cosine:
        q, k = (F.normalize(_wide(x), dim=-1, eps=1e-12).to(x.dtype) for x in (q, k))
    if isinstance(scale, Tensor):
        q = (_wide(q) * scale.view(-1, 1, 1)).to(q.dtype)
        factor = 1.0
    elif scale is None:
        factor = 1.0 if cosine else float(q.shape[-1] ** -0.5)
    else:
        factor = scale
    arguments = (q, k, v, dictionary, bias, factor)
    return choose("knn_attention", backend, IMPLEMENTATIONS, *arguments), arguments


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
