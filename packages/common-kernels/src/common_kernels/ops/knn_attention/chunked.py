# SPDX-License-Identifier: Apache-2.0
"""The reference, some queries at a time: little memory on any device.

A graph sees it as two opaque operators, since a loop over windows and queries would fix their numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from common_kernels.ops.knn_attention.reference import knn_attention_reference
from common_kernels.ops.knn_dictionary import KNNDictionary

_GATHERED_ELEMENTS = 1 << 19  # of one chunk's keys: two megabytes in fp32, within a core's cache


def knn_attention_chunked(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> Tensor:
    """Return ``(B, heads, N, head_dim)`` in the dtype of ``q``; the backward gathers again."""
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        return torch.ops.common_kernels.knn_attention_chunked_fwd(q, k, v, dictionary.index, bias, scale)
    return _attend(q, k, v, dictionary.index, bias, scale)


def _cut(q: Tensor, slots: int) -> Iterator[tuple[slice, slice]]:
    """Return a window and some of its queries at a time."""
    B, heads, N, head_dim = q.shape
    length = max(1, _GATHERED_ELEMENTS // max(1, heads * slots * head_dim))
    for b, start in itertools.product(range(B), range(0, N, length)):
        yield slice(b, b + 1), slice(start, start + length)


def _attend(q: Tensor, k: Tensor, v: Tensor, index: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    num_keys = k.shape[2]
    if q.shape[0] == 0:  # nothing to cut, but the graph must reach every input
        return knn_attention_reference(q, k, v, KNNDictionary(index, num_keys), bias, scale)
    train = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (q, k, v, bias))
    windows: dict[int, list[Tensor]] = {}
    for window, rows in _cut(q, index.shape[-1]):
        part = KNNDictionary(index[window, rows], num_keys)
        own_bias = None if bias is None else bias[:, rows]
        arguments = (q[window, :, rows], k[window], v[window], part, own_bias, scale)
        if train:
            out = checkpoint(knn_attention_reference, *arguments, use_reentrant=False)
        else:
            out = knn_attention_reference(*arguments)
        windows.setdefault(window.start, []).append(out)
    return torch.cat([torch.cat(parts, dim=2) for parts in windows.values()])


@torch.library.custom_op("common_kernels::knn_attention_chunked_fwd", mutates_args=())
def _forward(q: Tensor, k: Tensor, v: Tensor, index: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    return _attend(q, k, v, index, bias, scale)


@torch.library.custom_op("common_kernels::knn_attention_chunked_bwd", mutates_args=())
def _backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, index: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))
    dbias = q.new_zeros(0) if bias is None else torch.zeros_like(bias)
    for window, rows in _cut(q, index.shape[-1]):
        part = KNNDictionary(index[window, rows], k.shape[2])

        def attend(q: Tensor, k: Tensor, v: Tensor, *bias: Tensor, part: KNNDictionary = part) -> Tensor:
            return knn_attention_reference(q, k, v, part, bias[0] if bias else None, scale)

        leaves = (q[window, :, rows], k[window], v[window], *([] if bias is None else [bias[:, rows]]))
        # a transform, since autograd does not record inside an operator
        pull_back = torch.func.vjp(attend, *leaves)[1]
        targets = (dq[window, :, rows], dk[window], dv[window], dbias[:, rows] if bias is not None else dbias)
        for target, gradient in zip(targets, pull_back(dout[window, :, rows]), strict=False):
            target += gradient
    return dq, dk, dv, dbias


@_forward.register_fake
def _(q: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


@_backward.register_fake
def _(dout: Tensor, q: Tensor, k: Tensor, v: Tensor, index: Tensor, bias: Tensor | None, scale: float) -> Any:
    given = (torch.empty_like(x) for x in (q, k, v))
    return *given, q.new_empty(0) if bias is None else torch.empty_like(bias)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors
    dq, dk, dv, dbias = torch.ops.common_kernels.knn_attention_chunked_bwd(dout, *saved, ctx.scale)
    return dq, dk, dv, None, None if saved[-1] is None else dbias, None


_forward.register_autograd(_differentiate, setup_context=_save)
