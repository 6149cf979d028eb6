# SPDX-License-Identifier: Apache-2.0
"""Allocation and launch: from tensors to the pointers, strides and tile sizes that the kernels take."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from common_kernels.ops.knn_attention.triton.backward import (
    knn_attention_bwd_dbias_kernel,
    knn_attention_bwd_delta_kernel,
    knn_attention_bwd_dkv_kernel,
    knn_attention_bwd_dq_kernel,
)
from common_kernels.ops.knn_attention.triton.forward import knn_attention_fwd_kernel
from common_kernels.ops.knn_attention.triton.tiles import Kind, block_d, candidate_tiles, default_tile

_LOG2_E = 1.4426950408889634

# Triton up to 3.9 fuses multiply and add by default, later ones do not: results must not depend on that
_FP_FUSION = {"enable_fp_fusion": True}


class ForwardArguments(NamedTuple):
    """Arguments of the forward operator, in the order of its schema.

    Attributes:
        q: Queries, ``(B, heads, N, head_dim)``, any strides.
        k: Keys, ``(B, heads, M, head_dim)``, any strides.
        v: Values, like ``k``.
        bits: Packed dictionary, ``(B, N, ceil(M / 32))``, int32, contiguous.
        bits_transposed: Packed transposed dictionary, ``(B, M, ceil(N / 32))``, int32, contiguous; only the
            backward reads it.
        bias: Additive bias, ``(heads, N, M)``, any strides, or ``None``.
        scale: Factor on the logits.
        skip_empty: Whether tiles without a listed pair are skipped.
        store_lse: Whether the backward will need the normaliser.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    bits: Tensor
    bits_transposed: Tensor | None
    bias: Tensor | None
    scale: float
    skip_empty: bool
    store_lse: bool


class BackwardArguments(NamedTuple):
    """Arguments of the backward operator, in the order of its schema.

    Attributes:
        dout: Gradient of the output, ``(B, heads, N, head_dim)``, any strides.
        q: Queries; this and what has a name of :class:`ForwardArguments` is the same here.
        k: Keys.
        v: Values.
        out: Output of the forward, contiguous.
        lse: Second result of the forward.
        bits: Packed dictionary.
        bits_transposed: Packed transposed dictionary, needed for ``need_dkv`` only.
        bias: Additive bias or ``None``.
        scale: Factor on the logits.
        skip_empty: Whether tiles without a listed pair are skipped.
        need_dq: Whether ``q`` needs a gradient.
        need_dkv: Whether ``k`` or ``v`` needs one.
        need_dbias: Whether ``bias`` needs one.
    """

    dout: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    lse: Tensor
    bits: Tensor
    bits_transposed: Tensor | None
    bias: Tensor | None
    scale: float
    skip_empty: bool
    need_dq: bool
    need_dkv: bool
    need_dbias: bool

    def empty_gradients(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Allocate the gradients, contiguous; those that are not needed have no elements."""
        q, k, v, bias = self.q, self.k, self.v, self.bias
        return (
            q.new_empty(q.shape if self.need_dq else (0,)),
            k.new_empty(k.shape if self.need_dkv else (0,)),
            v.new_empty(v.shape if self.need_dkv else (0,)),
            q.new_empty(0) if bias is None or not self.need_dbias else bias.new_empty(bias.shape),
        )


def launch_forward(a: ForwardArguments) -> tuple[Tensor, Tensor]:
    """Attend under the packed dictionary.

    Returns:
        The output, ``(B, heads, N, head_dim)``, contiguous, dtype of ``q``; and the base-2 log of the
        softmax denominator, ``(B, heads, N)`` fp32, minus infinity for an empty row (of no elements
        unless ``store_lse``).
    """
    B, heads, N, head_dim = a.q.shape
    M = a.k.shape[2]
    out = a.q.new_empty((B, heads, N, head_dim))
    lse = a.q.new_empty((B, heads, N) if a.store_lse else (0,), dtype=torch.float32)
    if out.numel() == 0:
        return out, lse
    with _device_of(a.q):
        _launch(
            "fwd", knn_attention_fwd_kernel,
            lambda meta: (B * heads * triton.cdiv(N, meta["BLOCK_M"]),),
            a.q, a.k, a.v, a.bits, a.bias, out, lse,
            *_strides(a.q, a.k, a.v, bias=a.bias),
            heads, N, M, a.bits.shape[-1], a.scale * _LOG2_E,
            HEAD_DIM=head_dim, BLOCK_D=block_d(head_dim), HAS_BIAS=a.bias is not None,
            STORE_LSE=a.store_lse, SKIP_EMPTY=a.skip_empty,
        )  # fmt: skip
    return out, lse


def launch_backward(a: BackwardArguments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients that are needed; the others have no elements.

    Returns:
        ``dq``, ``dk``, ``dv`` and ``dbias``, contiguous, in the shapes and dtypes of what they belong to.

    Raises:
        ValueError: If ``k`` or ``v`` needs a gradient and ``bits_transposed`` is ``None``.
    """
    B, heads, N, head_dim = a.q.shape
    M = a.k.shape[2]
    if a.need_dkv and a.bits_transposed is None:
        raise ValueError("bits_transposed must be given where k or v needs a gradient, got None")
    dq, dk, dv, dbias = a.empty_gradients()
    if B * heads * N * head_dim == 0:
        return dq.zero_(), dk.zero_(), dv.zero_(), dbias.zero_()

    strides = _strides(a.q, a.k, a.v, a.dout, bias=a.bias)
    width = {"HEAD_DIM": head_dim, "BLOCK_D": block_d(head_dim)}
    flags = {"HAS_BIAS": a.bias is not None, "SKIP_EMPTY": a.skip_empty}
    with _device_of(a.q):
        delta = _row_dot(a.out, a.dout)
        if a.need_dq:
            _launch(
                "bwd_dq", knn_attention_bwd_dq_kernel,
                lambda meta: (B * heads * triton.cdiv(N, meta["BLOCK_M"]),),
                a.q, a.k, a.v, a.bits, a.bias, a.dout, a.lse, delta, dq, *strides,
                heads, N, M, a.bits.shape[-1], a.scale * _LOG2_E, a.scale, **width, **flags,
            )  # fmt: skip
        if a.bits_transposed is not None and a.need_dkv:
            _launch(
                "bwd_dkv", knn_attention_bwd_dkv_kernel,
                lambda meta: (B * heads * triton.cdiv(M, meta["BLOCK_N"]),),
                a.q, a.k, a.v, a.bits_transposed, a.bias, a.dout, a.lse, delta, dk, dv, *strides,
                heads, N, M, a.bits_transposed.shape[-1], a.scale * _LOG2_E, a.scale, **width, **flags,
            )  # fmt: skip
        if a.need_dbias:
            _launch(
                "bwd_dbias", knn_attention_bwd_dbias_kernel,
                lambda meta: (heads * triton.cdiv(N, meta["BLOCK_M"]) * triton.cdiv(M, meta["BLOCK_N"]),),
                a.q, a.k, a.v, a.bits, a.bias, a.dout, a.lse, delta, dbias, *strides,
                B, heads, N, M, a.bits.shape[-1], a.scale * _LOG2_E, **width,
            )  # fmt: skip
    return dq, dk, dv, dbias


def _strides(*tensors: Tensor, bias: Tensor | None) -> list[int]:
    strides = [stride for x in tensors for stride in x.stride()]
    return [*strides, *((0, 0, 0) if bias is None else bias.stride())]


def _row_dot(out: Tensor, dout: Tensor) -> Tensor:
    """Return ``rowsum(out * dout)``, ``(B, heads, N)`` fp32."""
    B, heads, N, head_dim = out.shape
    delta = out.new_empty((B, heads, N), dtype=torch.float32)
    kernel: Any = knn_attention_bwd_delta_kernel
    kernel[(B * heads * triton.cdiv(N, 64),)](
        out, dout, delta, *dout.stride(), heads, N,
        HEAD_DIM=head_dim, BLOCK_D=block_d(head_dim), BLOCK_M=64, **_FP_FUSION,
    )  # fmt: skip
    return delta


def _device_of(x: Tensor) -> AbstractContextManager[object]:
    """Make the device of ``x`` current: a kernel starts on the current one, whatever its arguments."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _launch(
    kind: Kind, kernel: Any, grid: Callable[[dict[str, int]], tuple[int]], q: Tensor, *args: Any, **meta: Any
) -> None:
    """Run a kernel whose first argument is ``q`` and whose tile sizes are still open.

    With ``COMMON_KERNELS_AUTOTUNE=1`` in the environment the candidates are timed once for each new
    shape class and the fastest is kept on disk; otherwise, and while a graph is captured (timing would
    break it), :func:`default_tile` decides.
    """
    head_dim: int = meta["HEAD_DIM"]
    search = os.environ.get("COMMON_KERNELS_AUTOTUNE") == "1" and q.is_cuda
    if search and not torch.cuda.is_current_stream_capturing():
        limit = torch.cuda.get_device_properties(q.device).shared_memory_per_block_optin
        tuned = _autotuned(kind, kernel, head_dim, q.dtype, limit)
        tuned[grid](q, *args, **meta, **_FP_FUSION)
        return
    rows = args[0].shape[2] if kind == "bwd_dkv" else q.shape[2]
    tile = default_tile(kind, head_dim, rows, q.dtype, meta.get("HAS_BIAS", True))
    kernel[grid](
        q, *args, **meta, BLOCK_M=tile.block_m, BLOCK_N=tile.block_n,
        num_warps=tile.num_warps, num_stages=tile.num_stages, **_FP_FUSION,
    )  # fmt: skip


@cache
def _autotuned(kind: Kind, kernel: Any, head_dim: int, dtype: torch.dtype, shared_limit: int) -> Any:
    configs = [
        triton.Config(
            {"BLOCK_M": t.block_m, "BLOCK_N": t.block_n}, num_warps=t.num_warps, num_stages=t.num_stages
        )
        for t in candidate_tiles(kind, head_dim, dtype, shared_limit)
    ]
    # the window count only matters through the grid; timing it again for every batch size would never end
    return triton.autotune(configs, key=["heads", "N", "M"], cache_results=True)(kernel)
