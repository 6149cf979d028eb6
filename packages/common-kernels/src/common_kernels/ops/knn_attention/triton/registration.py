# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels as two opaque torch operators, so that graphs and autograd see them whole.

Importing this file registers ``torch.ops.common_kernels.knn_attention_fwd`` and ``..._bwd``; it needs
Triton. The operators are opaque because their launchers choose tile sizes in Python.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from common_kernels.ops.knn_attention.triton.launch import empty_gradients, launch_backward, launch_forward

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
def _run_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bits: Tensor,
    bits_transposed: Tensor | None,
    bias: Tensor | None,
    scale: float,
    skip_empty: bool,
    store_lse: bool,
) -> tuple[Tensor, Tensor]:
    # the transposed bits are an argument for the backward's sake only
    return launch_forward(q, k, v, bits, bias, scale, skip_empty=skip_empty, store_lse=store_lse)


@torch.library.register_fake(_FORWARD)  # pyright: ignore[reportUntypedFunctionDecorator]
def _fake_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bits: Tensor,
    bits_transposed: Tensor | None,
    bias: Tensor | None,
    scale: float,
    skip_empty: bool,
    store_lse: bool,
) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(q.shape[:3] if store_lse else (0,), dtype=torch.float32)


@torch.library.impl(_BACKWARD, "default")
def _run_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    bits: Tensor,
    bits_transposed: Tensor | None,
    bias: Tensor | None,
    scale: float,
    skip_empty: bool,
    need_dq: bool,
    need_dkv: bool,
    need_dbias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return launch_backward(
        dout, q, k, v, out, lse, bits, bits_transposed, bias, scale,
        skip_empty=skip_empty, need_dq=need_dq, need_dkv=need_dkv, need_dbias=need_dbias,
    )  # fmt: skip


@torch.library.register_fake(_BACKWARD)  # pyright: ignore[reportUntypedFunctionDecorator]
def _fake_backward(
    dout: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    bits: Tensor,
    bits_transposed: Tensor | None,
    bias: Tensor | None,
    scale: float,
    skip_empty: bool,
    need_dq: bool,
    need_dkv: bool,
    need_dbias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return empty_gradients(q, k, v, bias, need_dq, need_dkv, need_dbias)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, bits, bits_transposed, bias, ctx.scale, ctx.skip_empty, _ = inputs
    out, lse = output
    ctx.mark_non_differentiable(lse)
    ctx.save_for_backward(q, k, v, out, lse, bits, bits_transposed, bias)


def _differentiate(ctx: Any, dout: Tensor, _dlse: Tensor | None) -> tuple[Tensor | None, ...]:
    q, k, v, out, lse, bits, bits_transposed, bias = ctx.saved_tensors
    need_dq, need_dk, need_dv, _, _, need_dbias, *_ = ctx.needs_input_grad
    dq, dk, dv, dbias = torch.ops.common_kernels.knn_attention_bwd(
        dout, q, k, v, out, lse, bits, bits_transposed, bias, ctx.scale,
        ctx.skip_empty, need_dq, need_dk or need_dv, need_dbias,
    )  # fmt: skip
    return (
        dq if need_dq else None,
        dk if need_dk else None,
        dv if need_dv else None,
        None,
        None,
        dbias if need_dbias else None,
        None,
        None,
        None,
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
    out, _ = torch.ops.common_kernels.knn_attention_fwd(
        q, k, v, bits, bits_transposed, bias, scale, skip_empty, store_lse
    )
    return out
