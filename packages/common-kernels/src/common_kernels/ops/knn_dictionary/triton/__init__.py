# SPDX-License-Identifier: Apache-2.0
"""Fused similarity and exact selection in Triton: no ``N x N`` array is stored.

Selection is by bisection on integers that order as the scores do. Short windows take one kernel
(``rows.py``), long ones five (``passes.py``). This file needs no Triton: it says whether a call can run
here and loads the kernels when one does.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from common_kernels._triton import INTERPRETED, why_no_triton
from common_kernels.ops.knn_dictionary.triton.limits import MAX_LISTED, MAX_ROW

__all__ = ["knn_dictionary_triton", "not_auto_triton", "why_not_triton"]


def why_not_triton(
    x: Tensor, k: int, similarity: str, force_self: bool, regions: Tensor | None
) -> str | None:
    """Return why the kernels cannot run this call, or ``None``."""
    if x.dtype not in MAX_ROW:
        return f"needs float16, bfloat16 or float32, got {x.dtype}"
    if x.shape[1] > MAX_ROW[x.dtype] and k > MAX_LISTED:
        return f"needs k of at most {MAX_LISTED} in windows of {x.shape[1]} tokens, got {k}"
    return why_no_triton(x)


def not_auto_triton(
    x: Tensor, k: int, similarity: str, force_self: bool, regions: Tensor | None
) -> str | None:
    """Return why ``"auto"`` should prefer another backend although this one runs, or ``None``."""
    return "the kernels are interpreted" if INTERPRETED else None


def knn_dictionary_triton(
    x: Tensor, k: int, similarity: str, force_self: bool, regions: Tensor | None
) -> Tensor:
    """Return the index list, ``(B, N, k)``, int32, ascending in each row, ``-1`` in unused slots.

    Products are exact for fp16 and bf16 and IEEE fp32 otherwise, never TF32; sums are fp32. Their order
    differs from the reference's, so two keys whose similarities differ by rounding may change places:
    every chosen similarity is at least every unchosen one less that rounding, and the sets are equal
    where the gap at the ``k``-th is wider. Equal rows of ``x`` tie exactly and go to the lower index.
    """
    # pulls in triton, which not every machine has
    from common_kernels.ops.knn_dictionary.triton.launch import dictionary_index

    x = x.detach()
    column = None  # (B, N): what a score takes from the norm of the other token
    if similarity == "l2":
        column = x.float().square().sum(dim=-1).contiguous()
    elif similarity == "cosine" and x.dtype == torch.float32:
        x, similarity = F.normalize(x, dim=-1), "dot"
    elif similarity == "cosine":  # the products of the features as they are stay exact
        column = x.float().norm(dim=-1).clamp_min(1e-12).reciprocal().contiguous()
    regions = None if regions is None else regions.long().contiguous()
    return dictionary_index(x.contiguous(), column, regions, similarity, k, force_self)
