# SPDX-License-Identifier: Apache-2.0
"""Allocation and launch of the dictionary kernels, as one operator that is opaque to ``torch.compile``.

Importing this file registers ``torch.ops.common_kernels.knn_dictionary_index``; it needs Triton.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal

import torch
import triton
from torch import Tensor

from common_kernels.ops.knn_dictionary.triton.limits import MAX_ROW
from common_kernels.ops.knn_dictionary.triton.passes import (
    knn_dictionary_bound_kernel,
    knn_dictionary_choose_kernel,
    knn_dictionary_collect_kernel,
    knn_dictionary_exact_kernel,
    knn_dictionary_maxima_kernel,
)
from common_kernels.ops.knn_dictionary.triton.rows import knn_dictionary_rows_kernel

_OP = "common_kernels::knn_dictionary_index"
# Triton up to 3.9 fuses multiply and add by default, later ones do not: results must not depend on that
_FP_FUSION = {"enable_fp_fusion": True}

torch.library.define(
    _OP,
    "(Tensor x, Tensor? column, Tensor? regions, str similarity, int k, bool force_self) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


@torch.library.impl(_OP, "default")
def _launch(
    x: Tensor, column: Tensor | None, regions: Tensor | None, similarity: str, k: int, force_self: bool
) -> Tensor:
    B, N, _ = x.shape
    index = x.new_empty((B, N, k), dtype=torch.int32)
    if index.numel() == 0:
        return index
    flags = {"SIMILARITY": similarity, "HAS_REGIONS": regions is not None, "FORCE_SELF": force_self}
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        launch = _launch_rows if MAX_ROW[x.dtype] >= N else _launch_passes
        launch(x, column, regions, index, flags)
    return index


@torch.library.register_fake(_OP)  # pyright: ignore[reportUntypedFunctionDecorator]
def _fake(
    x: Tensor, column: Tensor | None, regions: Tensor | None, similarity: str, k: int, force_self: bool
) -> Tensor:
    return x.new_empty((*x.shape[:2], k), dtype=torch.int32)


def dictionary_index(
    x: Tensor, column: Tensor | None, regions: Tensor | None, similarity: str, k: int, force_self: bool
) -> Tensor:
    """Call the operator.

    Args:
        x: Features, ``(B, N, C)``, contiguous.
        column: ``(B, N)``, fp32, contiguous: the squared norms for ``"l2"``, the inverse norms for
            ``"cosine"``, ``None`` for ``"dot"``.
        regions: ``(G, N)``, int64, contiguous, or ``None``.
        similarity: ``"dot"``, ``"l2"`` or ``"cosine"``.
        k: Keys per token, at most ``N``.
        force_self: Whether a token always lists itself.

    Returns:
        The lists, ``(B, N, k)``, int32.
    """
    return torch.ops.common_kernels.knn_dictionary_index(x, column, regions, similarity, k, force_self)


def _launch_rows(
    x: Tensor, column: Tensor | None, regions: Tensor | None, index: Tensor, flags: dict[str, Any]
) -> None:
    B, N, C = x.shape
    k = index.shape[-1]
    block_n = max(32, triton.next_power_of_2(N))
    options = row_options(block_n)
    kernel: Any = knn_dictionary_rows_kernel
    kernel[(B * triton.cdiv(N, options["BLOCK_R"]),)](
        x, column, regions, index, N, C, k, 1 if regions is None else regions.shape[0],
        BLOCK_N=block_n, BLOCK_K=triton.next_power_of_2(k), **flags, **options, **_FP_FUSION,
    )  # fmt: skip


def _launch_passes(
    x: Tensor, column: Tensor | None, regions: Tensor | None, index: Tensor, flags: dict[str, Any]
) -> None:
    B, N, C = x.shape
    k = index.shape[-1]
    groups = 1 if regions is None else regions.shape[0]
    slots = num_slots(k)
    maxima_tile, collect_tile, exact_tile = (
        {**pass_options(name, x.dtype), **flags, **_FP_FUSION} for name in ("maxima", "collect", "exact")
    )
    bound, peak, count = (x.new_empty((B, N), dtype=torch.int32) for _ in range(3))
    found = x.new_empty((B, N, slots), dtype=torch.int64)
    maxima = found.view(torch.int32)  # read before it is written over
    tiles, parts = B * triton.cdiv(N, maxima_tile["BLOCK_R"]), slots // maxima_tile["BLOCK_N"]
    rows: dict[str, Any] = {"SLOTS": slots, "BLOCK_R": 2048 // slots, "num_warps": 4, **_FP_FUSION}
    row_programs, block_k = triton.cdiv(B * N, rows["BLOCK_R"]), triton.next_power_of_2(k)

    kernel: Any = knn_dictionary_maxima_kernel
    kernel[(tiles * parts,)](x, column, regions, maxima, N, C, groups, SLOTS=slots, **maxima_tile)
    kernel = knn_dictionary_bound_kernel
    kernel[(row_programs,)](maxima, bound, peak, B * N, k, **rows)
    kernel = knn_dictionary_collect_kernel
    kernel[(tiles,)](x, column, regions, bound, found, count, N, C, groups, SLOTS=slots, **collect_tile)
    kernel = knn_dictionary_choose_kernel
    kernel[(row_programs,)](bound, found, count, index, B * N, k, BLOCK_K=block_k, **rows)
    kernel = knn_dictionary_exact_kernel
    kernel[(B * triton.cdiv(N, exact_tile["BLOCK_R"]),)](
        x, column, regions, bound, peak, count, index, N, C, k, groups,
        SLOTS=slots, BLOCK_K=block_k, **exact_tile,
    )  # fmt: skip


def row_options(block_n: int) -> dict[str, Any]:
    """Return the sizes that keep a block of rows of ``block_n`` scores within registers."""
    return {
        "BLOCK_R": 8 if block_n > 1024 else 16,
        "BLOCK_C": 16,  # the least depth that a product of every supported Triton takes
        "num_warps": 4 if block_n <= 256 else 8,
        "num_stages": 1,
    }


def pass_options(name: Literal["maxima", "collect", "exact"], dtype: torch.dtype) -> dict[str, Any]:
    """Return the sizes of a tile of scores, such that no kernel spills registers (compute 8.0 and 9.0)."""
    is_wide = dtype == torch.float32  # its products hold their operands in registers
    return {
        "BLOCK_R": 32 if name == "exact" else 64,
        "BLOCK_N": 128,
        "BLOCK_C": 16 if is_wide else 64,
        "num_warps": 8,
        "num_stages": 2 if name == "maxima" and not is_wide else 1,
    }


def num_slots(k: int) -> int:
    """Return the number of groups that bound a row, and the room for the columns that reach the bound.

    Of ``k`` best columns dealt at random into twice as many groups, about ``1.4 k`` reach the bound; the
    more groups, the fewer. Few columns vary more, so that they get more room.
    """
    return max(128, triton.next_power_of_2(3 * k if k < 256 else 2 * k))
