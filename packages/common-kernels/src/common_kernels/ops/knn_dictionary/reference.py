# SPDX-License-Identifier: Apache-2.0
"""The specification of :func:`knn_dictionary`: full similarity, stable sort, first ``k``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from common_kernels._tracing import hides_values


def ranking(x: Tensor, similarity: str, force_self: bool, regions: Tensor | None) -> Tensor:
    """Return what the rows are sorted by, ``(B, N, N)``, fp32 (fp64 if ``x`` is).

    Real similarities are finite here: NaN and minus infinity become the lowest number. A forbidden
    pair is minus infinity and a forced self is plus infinity.
    """
    x = x.detach()
    x = x if x.dtype == torch.float64 else x.float()
    B, N, _ = x.shape
    if similarity == "cosine":
        x = F.normalize(x, dim=-1)
    scores = x @ x.mT  # (B, N, N)
    if similarity == "l2":
        # minus the squared distance, less the row's own norm, which cannot change its order
        scores = 2 * scores - x.square().sum(dim=-1).unsqueeze(-2)
    if not _stays_finite(x):
        lowest = torch.finfo(scores.dtype).min
        scores = torch.nan_to_num(scores, nan=lowest, posinf=-lowest, neginf=lowest)
    if force_self and torch.compiler.is_compiling():  # exporters refuse a view that is written to
        scores = scores.masked_fill(torch.eye(N, dtype=torch.bool, device=x.device), float("inf"))
    elif force_self:
        scores.diagonal(dim1=-2, dim2=-1).fill_(float("inf"))
    if regions is not None:
        foreign = (regions.unsqueeze(-1) != regions.unsqueeze(-2)) | (regions < 0).unsqueeze(-1)  # (G, N, N)
        scores = scores.unflatten(0, (-1, regions.shape[0]))  # (B / G, G, N, N)
        scores = scores.masked_fill(foreign, float("-inf")).reshape(B, N, N)
    return scores


def _stays_finite(x: Tensor) -> bool:
    """Return whether no product of the features can overflow; spares a pass over all pairs."""
    if hides_values(x) or not x.numel():
        return False
    largest = (torch.finfo(x.dtype).max / (4 * x.shape[-1])) ** 0.5
    return bool(x.abs().amax() < largest)  # false for NaN


def knn_dictionary_reference(
    x: Tensor, k: int, similarity: str, force_self: bool, regions: Tensor | None
) -> Tensor:
    """Return the index list, ``(B, N, k)``, int32, ``-1`` where fewer than ``k`` keys are allowed."""
    scores = ranking(x, similarity, force_self, regions)
    values, order = torch.sort(scores, dim=-1, descending=True, stable=True)
    return order[..., :k].masked_fill(values[..., :k] == float("-inf"), -1).to(torch.int32)
