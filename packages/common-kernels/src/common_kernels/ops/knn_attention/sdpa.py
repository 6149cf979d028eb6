# SPDX-License-Identifier: Apache-2.0
"""Dense attention under the cached float mask, through torch's fused kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common_kernels.ops.knn_dictionary import KNNDictionary


class _Identity(torch.autograd.Function):
    """The identity."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass


class _Refuse(_Identity):
    """The identity, on a gradient; says what its own gradient would need."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError(
            "the sdpa backend of knn_attention has no second derivative; "
            "call knn_attention(..., backend='reference') for it"
        )


class _OnceDifferentiable(_Identity):
    """The identity, whose gradient has none."""

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Refuse.apply(grads[0])


def knn_attention_sdpa(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> Tensor:
    """Return ``(B, heads, N, head_dim)`` in the dtype of ``q``.

    A key that is not listed gets weight 0, so a NaN or infinity in its value reaches every row of its
    window; the other backends keep it out.
    """
    mask = dictionary.float_mask(q.dtype)  # (B, 1, N, M)
    closed = None
    if bias is not None:
        mask = mask + bias.to(q.dtype)  # (B, heads, N, M)
        closed = (mask == float("-inf")).all(dim=-1, keepdim=True)
        mask = mask.masked_fill(closed, 0.0)  # the softmax must stay finite
    if torch.is_grad_enabled():
        q, k, v = (_OnceDifferentiable.apply(x) if x.requires_grad else x for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    if closed is not None:
        out = out.masked_fill(closed, 0.0)
    if dictionary.has_empty_rows:
        out = out.masked_fill(dictionary.empty_rows()[:, None, :, None], 0.0)
    return out
