# SPDX-License-Identifier: Apache-2.0
"""Attention on the CPU through compressed sparse rows: only listed pairs are ever computed.

Logits come from torch's sampled product and sums from its sparse matrix product, window by window and head
by head. Work and memory grow with ``N * K``, and the backward multiplies by the transposed rows instead of
scattering, so it is deterministic. Registered as two opaque operators, so that graphs see them whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from common_kernels.ops.knn_dictionary import KNNDictionary

_FORWARD, _BACKWARD = "common_kernels::knn_attention_csr_fwd", "common_kernels::knn_attention_csr_bwd"
_HAS_MKL = torch.backends.mkl.is_available()  # read once: a graph cannot ask
_DICTIONARY = "Tensor columns, Tensor? unused, Tensor? offsets, Tensor? queries, Tensor? slots"

torch.library.define(
    _FORWARD,
    f"(Tensor q, Tensor k, Tensor v, {_DICTIONARY}, Tensor? bias, float scale) -> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.define(
    _BACKWARD,
    f"(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor weights, {_DICTIONARY}, float scale, "
    "bool need_dbias) -> (Tensor, Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def knn_attention_csr(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> Tensor:
    """Return ``(B, heads, N, head_dim)`` in the dtype of ``q``; fp16 and bf16 are computed in fp32."""
    train = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (q, k, v, bias))
    listed = dictionary.transposed() if train else None
    out, _ = torch.ops.common_kernels.knn_attention_csr_fwd(
        q,
        k,
        v,
        dictionary.columns(),
        dictionary.unused(),
        listed.offsets if listed else None,
        listed.queries if listed else None,
        listed.slots if listed else None,
        bias,
        scale,
    )
    if dictionary.has_empty_rows:
        out = out.masked_fill(dictionary.empty_rows()[:, None, :, None], 0.0)
    return out


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _heads(B: int, heads: int) -> Iterator[tuple[int, int]]:
    return ((b, h) for b in range(B) for h in range(heads))


def _sparse(row_bounds: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        # torch calls its whole sparse module beta, once per process
        warnings.filterwarnings("ignore", message=".*Sparse CSR tensor support is in beta state.*")
        return torch.sparse_csr_tensor(row_bounds, columns, values, size=size, check_invariants=False)


def _equal_rows(N: int, K: int) -> Tensor:
    return torch.arange(0, N * K + 1, K)


@torch.library.impl(_FORWARD, "cpu")
# the sparse product has no half kernel
@torch.autocast("cpu", enabled=False)  # pyright: ignore[reportUntypedFunctionDecorator]
def _run_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    columns: Tensor,
    unused: Tensor | None,
    offsets: Tensor | None,
    queries: Tensor | None,
    slots: Tensor | None,
    bias: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    # the transposed rows are arguments for the backward's sake only
    B, heads, N, head_dim = q.shape
    M, K = k.shape[2], columns.shape[-1]
    dtype = _wide(q).dtype
    bounds, zeros = _equal_rows(N, K), torch.zeros(N * K, dtype=dtype)
    out = torch.empty((B, heads, N, head_dim), dtype=dtype)
    weights = torch.empty((B, heads, N, K), dtype=dtype)
    for b, h in _heads(B, heads):
        flat = columns[b].reshape(-1)
        pattern = _sparse(bounds, flat, zeros, (N, M))
        query, key = _wide(q[b, h]).contiguous(), _wide(k[b, h]).contiguous()
        logits = torch.sparse.sampled_addmm(pattern, query, key.mT, beta=0.0, alpha=scale).values().view(N, K)
        if bias is not None:
            logits = logits + bias[h].to(dtype).gather(1, columns[b])
        if unused is not None:
            # the lowest number, not infinity: an empty row must not become NaN, it is zeroed later
            logits = logits.masked_fill(unused[b], torch.finfo(dtype).min)
        torch.softmax(logits, dim=-1, out=weights[b, h])
        value = _wide(v[b, h]).contiguous()
        out[b, h] = _sparse(bounds, flat, weights[b, h].view(-1), (N, M)) @ value
    return out.to(q.dtype), weights


@torch.library.impl(_BACKWARD, "cpu")
# the sparse product has no half kernel
@torch.autocast("cpu", enabled=False)  # pyright: ignore[reportUntypedFunctionDecorator]
def _run_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    weights: Tensor,
    columns: Tensor,
    unused: Tensor | None,
    offsets: Tensor,
    queries: Tensor,
    slots: Tensor,
    scale: float,
    need_dbias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, heads, N, _ = q.shape
    M, K = k.shape[2], columns.shape[-1]
    dtype = weights.dtype
    bounds, zeros = _equal_rows(N, K), torch.zeros(N * K, dtype=dtype)
    dq, dk, dv = (torch.empty(x.shape, dtype=dtype) for x in (q, k, v))
    dbias = torch.zeros((heads, N, M) if need_dbias else (0,), dtype=dtype)
    for b, h in _heads(B, heads):
        flat = columns[b].reshape(-1)
        slope, value = _wide(dout[b, h]).contiguous(), _wide(v[b, h]).contiguous()
        pattern = _sparse(bounds, flat, zeros, (N, M))
        dweights = torch.sparse.sampled_addmm(pattern, slope, value.mT, beta=0.0).values().view(N, K)
        delta = (slope * _wide(out[b, h])).sum(dim=-1, keepdim=True)
        dlogits = weights[b, h] * (dweights - delta)
        if unused is not None:
            dlogits = dlogits.masked_fill(unused[b], 0.0)
        if need_dbias:
            dbias[h].scatter_add_(1, columns[b], dlogits)
        listed = (offsets[b], queries[b], slots[b])
        query, key = _wide(q[b, h]).contiguous(), _wide(k[b, h]).contiguous()
        dq[b, h] = scale * (_sparse(bounds, flat, dlogits.view(-1), (N, M)) @ key)
        dk[b, h] = scale * (_transposed(listed, dlogits, (M, N)) @ query)
        dv[b, h] = _transposed(listed, weights[b, h], (M, N)) @ slope
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), dbias


def _transposed(listed: tuple[Tensor, Tensor, Tensor], values: Tensor, size: tuple[int, int]) -> Tensor:
    offsets, queries, slots = listed
    return _sparse(offsets, queries, values.reshape(-1)[slots], size)


@torch.library.register_fake(_FORWARD)  # pyright: ignore[reportUntypedFunctionDecorator]
def _fake_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    columns: Tensor,
    unused: Tensor | None,
    offsets: Tensor | None,
    queries: Tensor | None,
    slots: Tensor | None,
    bias: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    weights = q.new_empty((*q.shape[:3], columns.shape[-1]), dtype=_wide(q).dtype)
    return q.new_empty(q.shape), weights


@torch.library.register_fake(_BACKWARD)  # pyright: ignore[reportUntypedFunctionDecorator]
def _fake_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    weights: Tensor,
    columns: Tensor,
    unused: Tensor | None,
    offsets: Tensor,
    queries: Tensor,
    slots: Tensor,
    scale: float,
    need_dbias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shape = (q.shape[1], q.shape[2], k.shape[2]) if need_dbias else (0,)
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape), weights.new_empty(shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, columns, unused, offsets, queries, slots, bias, scale = inputs
    out, weights = output
    ctx.mark_non_differentiable(weights)
    ctx.save_for_backward(q, k, v, out, weights, columns, unused, offsets, queries, slots)
    ctx.scale = scale
    ctx.bias_dtype = None if bias is None or not bias.requires_grad else bias.dtype


def _backward(ctx: Any, dout: Tensor, _dweights: Tensor) -> tuple[Any, ...]:
    q, k, v, out, weights, columns, unused, offsets, queries, slots = ctx.saved_tensors
    dq, dk, dv, dbias = torch.ops.common_kernels.knn_attention_csr_bwd(
        dout,
        q,
        k,
        v,
        out,
        weights,
        columns,
        unused,
        offsets,
        queries,
        slots,
        ctx.scale,
        ctx.bias_dtype is not None,
    )
    return (
        dq,
        dk,
        dv,
        None,
        None,
        None,
        None,
        None,
        dbias.to(ctx.bias_dtype) if ctx.bias_dtype else None,
        None,
    )


torch.library.register_autograd(_FORWARD, _backward, setup_context=_setup_context)


def why_not_csr(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> str | None:
    """Return why this backend cannot run the call, or ``None``."""
    if q.device.type != "cpu":
        return f"needs tensors on the CPU, got {q.device.type}"
    if not _HAS_MKL:
        return "needs a torch built with MKL for its sparse products"
    if dictionary.k > dictionary.num_keys:  # torch's sampled product refuses more pairs than places
        return f"needs at most as many slots as keys, got {dictionary.k} and {dictionary.num_keys}"
    return None
