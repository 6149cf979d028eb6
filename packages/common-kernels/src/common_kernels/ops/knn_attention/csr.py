# SPDX-License-Identifier: Apache-2.0
"""Attention on the CPU through compressed sparse rows: only listed pairs are ever computed.

Logits come from torch's sampled product and sums from its sparse matrix product, window by window and head
by head. Work and memory grow with ``N * K``, and the backward multiplies by the transposed rows instead of
scattering, so it is deterministic. Registered as two opaque operators, so that graphs see them whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from common_kernels._batching import run_batched, run_one_by_one
from common_kernels._tracing import is_differentiated_by_transform
from common_kernels.ops.knn_dictionary import KNNDictionary

_FORWARD, _BACKWARD = "common_kernels::knn_attention_csr_fwd", "common_kernels::knn_attention_csr_bwd"
_HAS_MKL = torch.backends.mkl.is_available()  # read once: a graph cannot ask
_DICTIONARY = "Tensor columns, Tensor? unused, Tensor? offsets, Tensor? queries, Tensor? slots"


class _ForwardArguments(NamedTuple):
    """Arguments of the forward operator, in the order of its schema.

    Attributes:
        q: Queries, ``(B, heads, N, head_dim)``.
        k: Keys, ``(B, heads, M, head_dim)``.
        v: Values, like ``k``.
        columns: Result of :meth:`KNNDictionary.columns`.
        unused: Result of :meth:`KNNDictionary.unused`.
        offsets: Field of :class:`TransposedList`; this and the next two are read by the backward only.
        queries: Field of :class:`TransposedList`.
        slots: Field of :class:`TransposedList`.
        bias: Additive bias, ``(heads, N, M)``, or ``None``.
        scale: Factor on the logits.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    columns: Tensor
    unused: Tensor | None
    offsets: Tensor | None
    queries: Tensor | None
    slots: Tensor | None
    bias: Tensor | None
    scale: float


class _BackwardArguments(NamedTuple):
    """Arguments of the backward operator, in the order of its schema.

    Attributes:
        dout: Gradient of the output, ``(B, heads, N, head_dim)``.
        q: Queries; this and what has a name of :class:`_ForwardArguments` is the same here.
        k: Keys.
        v: Values.
        out: Output of the forward.
        weights: Second result of the forward, ``(B, heads, N, K)``.
        columns: Listed keys.
        unused: Unused slots or ``None``.
        offsets: Field of :class:`TransposedList`.
        queries: Field of :class:`TransposedList`.
        slots: Field of :class:`TransposedList`.
        scale: Factor on the logits.
        need_dbias: Whether the bias needs a gradient.
    """

    dout: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    weights: Tensor
    columns: Tensor
    unused: Tensor | None
    offsets: Tensor
    queries: Tensor
    slots: Tensor
    scale: float
    need_dbias: bool


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
    transposed = (listed.offsets, listed.queries, listed.slots) if listed else (None, None, None)
    out, _ = torch.ops.common_kernels.knn_attention_csr_fwd(
        q, k, v, dictionary.columns(), dictionary.unused(), *transposed, bias, scale
    )
    if dictionary.has_empty_rows:
        out = out.masked_fill(dictionary.empty_rows()[:, None, :, None], 0.0)
    return out


def _close_rows(logits: Tensor, unused: Tensor | None, weights: Tensor) -> None:
    """Take all weight from queries whose every listed logit is minus infinity."""
    without = logits == float("-inf")
    without = without if unused is None else without | unused
    weights.masked_fill_(without.all(dim=-1, keepdim=True), 0.0)


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
def _run_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    a = _ForwardArguments(*arguments)
    B, heads, N, head_dim = a.q.shape
    M, K = a.k.shape[2], a.columns.shape[-1]
    dtype = _wide(a.q).dtype
    bounds, zeros = _equal_rows(N, K), torch.zeros(N * K, dtype=dtype)
    out = torch.empty((B, heads, N, head_dim), dtype=dtype)
    weights = torch.empty((B, heads, N, K), dtype=dtype)
    for b, h in _heads(B, heads):
        flat = a.columns[b].reshape(-1)
        pattern = _sparse(bounds, flat, zeros, (N, M))
        query, key = _wide(a.q[b, h]).contiguous(), _wide(a.k[b, h]).contiguous()
        products = torch.sparse.sampled_addmm(pattern, query, key.mT, beta=0.0, alpha=a.scale)
        logits = products.values().view(N, K)
        if a.bias is not None:
            logits = logits + a.bias[h].to(dtype).gather(1, a.columns[b])
        if a.unused is not None:
            # the lowest number, not infinity: an empty row must not become NaN, it is zeroed later
            logits = logits.masked_fill(a.unused[b], torch.finfo(dtype).min)
        torch.softmax(logits, dim=-1, out=weights[b, h])
        if a.bias is not None:
            _close_rows(logits, None if a.unused is None else a.unused[b], weights[b, h])
        value = _wide(a.v[b, h]).contiguous()
        out[b, h] = _sparse(bounds, flat, weights[b, h].view(-1), (N, M)) @ value
    return out.to(a.q.dtype), weights


@torch.library.impl(_BACKWARD, "cpu")
# the sparse product has no half kernel
@torch.autocast("cpu", enabled=False)  # pyright: ignore[reportUntypedFunctionDecorator]
def _run_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a = _BackwardArguments(*arguments)
    B, heads, N, _ = a.q.shape
    M, K = a.k.shape[2], a.columns.shape[-1]
    dtype = a.weights.dtype
    bounds, zeros = _equal_rows(N, K), torch.zeros(N * K, dtype=dtype)
    dq, dk, dv = (torch.empty(x.shape, dtype=dtype) for x in (a.q, a.k, a.v))
    dbias = torch.zeros((heads, N, M) if a.need_dbias else (0,), dtype=dtype)
    for b, h in _heads(B, heads):
        flat, weights = a.columns[b].reshape(-1), a.weights[b, h]
        dout, value = _wide(a.dout[b, h]).contiguous(), _wide(a.v[b, h]).contiguous()
        pattern = _sparse(bounds, flat, zeros, (N, M))
        dweights = torch.sparse.sampled_addmm(pattern, dout, value.mT, beta=0.0).values().view(N, K)
        delta = (dout * _wide(a.out[b, h])).sum(dim=-1, keepdim=True)
        dlogits = weights * (dweights - delta)
        if a.unused is not None:
            dlogits = dlogits.masked_fill(a.unused[b], 0.0)
        if a.need_dbias:
            dbias[h].scatter_add_(1, a.columns[b], dlogits)
        listed = (a.offsets[b], a.queries[b], a.slots[b])
        query, key = _wide(a.q[b, h]).contiguous(), _wide(a.k[b, h]).contiguous()
        dq[b, h] = a.scale * (_sparse(bounds, flat, dlogits.view(-1), (N, M)) @ key)
        dk[b, h] = a.scale * (_transposed(listed, dlogits, (M, N)) @ query)
        dv[b, h] = _transposed(listed, weights, (M, N)) @ dout
    return dq.to(a.q.dtype), dk.to(a.k.dtype), dv.to(a.v.dtype), dbias


def _transposed(listed: tuple[Tensor, Tensor, Tensor], values: Tensor, size: tuple[int, int]) -> Tensor:
    offsets, queries, slots = listed
    return _sparse(offsets, queries, values.reshape(-1)[slots], size)


@torch.library.register_fake(_FORWARD)  # pyright: ignore[reportUntypedFunctionDecorator]
def _fake_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    a = _ForwardArguments(*arguments)
    weights = a.q.new_empty((*a.q.shape[:3], a.columns.shape[-1]), dtype=_wide(a.q).dtype)
    return a.q.new_empty(a.q.shape), weights


@torch.library.register_fake(_BACKWARD)  # pyright: ignore[reportUntypedFunctionDecorator]
def _fake_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a = _BackwardArguments(*arguments)
    shape = (a.q.shape[1], a.q.shape[2], a.k.shape[2]) if a.need_dbias else (0,)
    dq, dk, dv = (x.new_empty(x.shape) for x in (a.q, a.k, a.v))
    return dq, dk, dv, a.weights.new_empty(shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    a = _ForwardArguments(*inputs)
    out, weights = output
    ctx.mark_non_differentiable(weights)
    ctx.save_for_backward(a.q, a.k, a.v, out, weights, a.columns, a.unused, a.offsets, a.queries, a.slots)
    ctx.scale = a.scale
    ctx.bias_dtype = None if a.bias is None or not a.bias.requires_grad else a.bias.dtype


def _backward(ctx: Any, dout: Tensor, _dweights: Tensor) -> tuple[Tensor | None, ...]:
    dq, dk, dv, dbias = torch.ops.common_kernels.knn_attention_csr_bwd(
        dout, *ctx.saved_tensors, ctx.scale, ctx.bias_dtype is not None
    )
    bias_gradient = dbias.to(ctx.bias_dtype) if ctx.bias_dtype else None
    return dq, dk, dv, None, None, None, None, None, bias_gradient, None


def _refuse_second_derivative(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    raise NotImplementedError(
        "the csr backend of knn_attention has no second derivative; "
        "call knn_attention(..., backend='reference') for it"
    )


torch.library.register_autograd(_FORWARD, _backward, setup_context=_setup_context)
torch.library.register_autograd(_BACKWARD, _refuse_second_derivative)


def _map_forward(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
    run = torch.ops.common_kernels.knn_attention_csr_fwd
    return run_batched(run, info.batch_size, in_dims, arguments, shared=(8,))


def _map_backward(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
    run = torch.ops.common_kernels.knn_attention_csr_bwd
    if arguments[-1]:  # each entry has a gradient of the bias
        return run_one_by_one(run, info.batch_size, in_dims, arguments)
    results, dims = run_batched(run, info.batch_size, in_dims, arguments, shared=())
    return results, dims


torch.library.register_vmap(_FORWARD, _map_forward)
torch.library.register_vmap(_BACKWARD, _map_backward)


def why_not_csr(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> str | None:
    """Return why this backend cannot run the call, or ``None``."""
    if q.device.type != "cpu":
        return f"needs tensors on the CPU, got {q.device.type}"
    if not _HAS_MKL:
        return "needs a torch built with MKL for its sparse products"
    if is_differentiated_by_transform(q, k, v, bias):
        return "has no rule for torch.func.grad and its relatives"
    if dictionary.k > dictionary.num_keys:  # torch's sampled product refuses more pairs than places
        return f"needs at most as many slots as keys, got {dictionary.k} and {dictionary.num_keys}"
    return None
