# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels as two opaque torch operators, so that graphs and autograd see them whole.

Importing this file registers ``torch.ops.common_kernels.knn_attention_fwd`` and ``..._bwd``; it needs
Triton. The operators are opaque because their launchers choose tile sizes in Python.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from common_kernels.ops.knn_attention.triton.launch import (
    BackwardArguments,
    ForwardArguments,
    launch_backward,
    launch_forward,
)

_FORWARD = "common_kernels::knn_attention_fwd"
_BACKWARD = "common_kernels::knn_attention_bwd"

torch.library.define(
    _FORWARD,
    "(Tensor q, Tensor k, Tensor v, Tensor bits, Tensor? bits_transposed, Tensor? bias, float scale, "
    "bool skip_empty, bool store_lse) -> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
torch.library.define(
    _BACKWARD,
    "(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor bits, "
    "Tensor? bits_transposed, Tensor? bias, float scale, bool skip_empty, "
    "bool need_dq, bool need_dkv, bool need_dbias) -> (Tensor, Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


@torch.library.impl(_FORWARD, "default")
def _run_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    return launch_forward(ForwardArguments(*arguments))


@torch.library.register_fake(_FORWARD)  # pyright: ignore[reportUntypedFunctionDecorator]
def _fake_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    a = ForwardArguments(*arguments)
    return a.q.new_empty(a.q.shape), a.q.new_empty(
        a.q.shape[:3] if a.store_lse else (0,), dtype=torch.float32
    )


@torch.library.impl(_BACKWARD, "default")
def _run_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return launch_backward(BackwardArguments(*arguments))


@torch.library.register_fake(_BACKWARD)  # pyright: ignore[reportUntypedFunctionDecorator]
def _fake_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return BackwardArguments(*arguments).empty_gradients()


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    a = ForwardArguments(*inputs)
    out, lse = output
    ctx.mark_non_differentiable(lse)
    ctx.save_for_backward(a.q, a.k, a.v, out, lse, a.bits, a.bits_transposed, a.bias)
    ctx.scale, ctx.skip_empty = a.scale, a.skip_empty


def _differentiate(ctx: Any, dout: Tensor, _dlse: Tensor | None) -> tuple[Tensor | None, ...]:
    needs = ForwardArguments(*ctx.needs_input_grad)
    dq, dk, dv, dbias = torch.ops.common_kernels.knn_attention_bwd(
        dout, *ctx.saved_tensors, ctx.scale, ctx.skip_empty, needs.q, needs.k or needs.v, needs.bias
    )
    gradients = {"q": dq, "k": dk, "v": dv, "bias": dbias}
    return tuple(
        gradients[name] if name in gradients and needed else None for name, needed in needs._asdict().items()
    )


def _refuse_second_derivative(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    raise NotImplementedError(
        "the triton backend of knn_attention has no second derivative; "
        "call knn_attention(..., backend='reference') for it"
    )


torch.library.register_autograd(_FORWARD, _differentiate, setup_context=_save)
torch.library.register_autograd(_BACKWARD, _refuse_second_derivative)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bits: Tensor,
    bits_transposed: Tensor | None,
    bias: Tensor | None,
    scale: float,
    *,
    skip_empty: bool,
) -> Tensor:
    """Call the forward operator; with ``bits_transposed`` its result can be differentiated."""
    store_lse = bits_transposed is not None
    arguments = ForwardArguments(q, k, v, bits, bits_transposed, bias, scale, skip_empty, store_lse)
    out, _ = torch.ops.common_kernels.knn_attention_fwd(*arguments)
    return out
