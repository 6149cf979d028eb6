# SPDX-License-Identifier: Apache-2.0
"""Attention on the CPU by the compiled kernels: rows of listed keys are read where they lie.

Work grows with ``N * K`` and nothing of that size is stored: the backward computes the weights again. Each
head of a window is added up by one thread in one order, so results do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from common_kernels._batching import run_batched, run_one_by_one
from common_kernels._native import not_auto_exporting, why_no_native
from common_kernels._tracing import is_differentiated_by_transform
from common_kernels.ops.knn_dictionary import KNNDictionary

_FORWARD, _BACKWARD = "common_kernels::knn_attention_native_fwd", "common_kernels::knn_attention_native_bwd"
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_UNAVAILABLE = why_no_native()  # read once: a graph cannot ask

torch.library.define(
    _FORWARD,
    "(Tensor q, Tensor k, Tensor v, Tensor bias, Tensor index, float scale) -> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.define(
    _BACKWARD,
    "(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor bias, Tensor index, "
    "float scale, bool need_dbias) -> (Tensor, Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


class _ForwardArguments(NamedTuple):
    """Arguments of the forward operator, in the order of its schema.

    Attributes:
        q: Queries, ``(B, heads, N, head_dim)``, any strides.
        k: Keys, ``(B, heads, M, head_dim)``, any strides.
        v: Values, like ``k``.
        bias: Additive bias, ``(heads, N, M)``, fp32, any strides; of no elements if there is none.
        lists: Listed keys, ``(B, N, K)``, int32, contiguous.
        scale: Factor on the logits.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor
    lists: Tensor
    scale: float


def why_not_native(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> str | None:
    """Return why the kernels cannot run this call, or ``None``."""
    if q.device.type != "cpu":
        return f"needs tensors on the CPU, got {q.device.type}"
    if q.dtype not in _DTYPES:
        return f"needs float16, bfloat16 or float32, got {q.dtype}"
    if is_differentiated_by_transform(q, k, v, bias):
        return "has no rule for torch.func.grad and its relatives"
    return _UNAVAILABLE


def not_auto_native(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> str | None:
    """Return why ``"auto"`` should prefer another backend although this one runs, or ``None``."""
    # measured on two CPU cores, docs/common-kernels/benchmarks.md: half of the keys are still a gain
    if 3 * dictionary.k > 2 * dictionary.num_keys:
        return "with more than 2 of 3 keys listed dense is faster"
    return not_auto_exporting()


def knn_attention_native(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> Tensor:
    """Return ``(B, heads, N, head_dim)``, contiguous, in the dtype of ``q``; everything between is fp32."""
    bias = q.new_empty(0, dtype=torch.float32) if bias is None else bias.float()
    out, _ = torch.ops.common_kernels.knn_attention_native_fwd(
        q, k, v, bias, dictionary.index.contiguous(), scale
    )
    return out


@torch.library.register_fake(_FORWARD)  # pyright: ignore[reportUntypedFunctionDecorator]
def _fake_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    a = _ForwardArguments(*arguments)
    return a.q.new_empty(a.q.shape), a.q.new_empty(a.q.shape[:3], dtype=torch.float32)


@torch.library.register_fake(_BACKWARD)  # pyright: ignore[reportUntypedFunctionDecorator]
def _fake_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shape = (q.shape[1], q.shape[2], k.shape[2]) if rest[-1] else (0,)
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    return dq, dk, dv, q.new_empty(shape, dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    a = _ForwardArguments(*inputs)
    out, lse = output
    ctx.mark_non_differentiable(lse)
    ctx.save_for_backward(a.q, a.k, a.v, out, lse, a.bias, a.lists)
    ctx.scale = a.scale


def _differentiate(ctx: Any, dout: Tensor, _dlse: Tensor | None) -> tuple[Tensor | None, ...]:
    need_dbias = ctx.needs_input_grad[3]
    dq, dk, dv, dbias = torch.ops.common_kernels.knn_attention_native_bwd(
        dout, *ctx.saved_tensors, ctx.scale, need_dbias
    )
    return dq, dk, dv, dbias if need_dbias else None, None, None


def _refuse_second_derivative(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    raise NotImplementedError(
        "the native backend of knn_attention has no second derivative; "
        "call knn_attention(..., backend='reference') for it"
    )


torch.library.register_autograd(_FORWARD, _differentiate, setup_context=_save)
torch.library.register_autograd(_BACKWARD, _refuse_second_derivative)


def _map_forward(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
    run = torch.ops.common_kernels.knn_attention_native_fwd
    return run_batched(run, info.batch_size, in_dims, arguments, shared=(3,))


def _map_backward(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
    run = torch.ops.common_kernels.knn_attention_native_bwd
    if arguments[-1]:  # each entry has a gradient of the bias
        return run_one_by_one(run, info.batch_size, in_dims, arguments)
    return run_batched(run, info.batch_size, in_dims, arguments, shared=(6,))


torch.library.register_vmap(_FORWARD, _map_forward)
torch.library.register_vmap(_BACKWARD, _map_backward)
