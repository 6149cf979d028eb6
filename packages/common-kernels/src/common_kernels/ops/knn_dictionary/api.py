# SPDX-License-Identifier: Apache-2.0
"""Public call of the top-k similarity dictionary."""

from __future__ import annotations

import contextlib
from typing import Literal, get_args

import torch
from torch import Tensor

from common_kernels._dispatch import Implementation, choose, explain
from common_kernels._precision import autocast_off, ieee_products
from common_kernels._tracing import hides_values
from common_kernels.ops.knn_dictionary.dictionary import KNNDictionary
from common_kernels.ops.knn_dictionary.native import (
    knn_dictionary_native,
    not_auto_native,
    why_not_native,
)
from common_kernels.ops.knn_dictionary.reference import knn_dictionary_reference
from common_kernels.ops.knn_dictionary.topk import knn_dictionary_topk
from common_kernels.ops.knn_dictionary.triton import (
    knn_dictionary_triton,
    not_auto_triton,
    why_not_triton,
)

Similarity = Literal["dot", "cosine", "l2"]


def _fits(x: Tensor, k: int, similarity: str, force_self: bool, regions: Tensor | None) -> None:
    return None


def _not_auto_topk(
    x: Tensor, k: int, similarity: str, force_self: bool, regions: Tensor | None
) -> str | None:
    return "it looks at its data, which would break the graph" if hides_values(x) else None


# in the order in which "auto" asks
IMPLEMENTATIONS = (
    Implementation("triton", why_not_triton, knn_dictionary_triton, not_auto_triton),
    Implementation("native", why_not_native, knn_dictionary_native, not_auto_native),
    Implementation("topk", _fits, knn_dictionary_topk, _not_auto_topk),
    Implementation("reference", _fits, knn_dictionary_reference),
)


def knn_dictionary(
    x: Tensor,
    k: int,
    *,
    similarity: Similarity = "dot",
    force_self: bool = True,
    regions: Tensor | None = None,
    backend: Literal["auto", "reference", "topk", "native", "triton"] = "auto",
) -> KNNDictionary:
    """List for every token of a window the ``k`` most similar tokens of the same window.

    Similarities are taken in fp32 (fp64 for fp64 input) whatever the input dtype, autocast and
    ``torch.set_float32_matmul_precision`` say, because lower precision changes the chosen sets. Ties go to
    the lower index. A NaN similarity ranks below every number. No gradient flows.

    Args:
        x: Token features, ``(B, N, C)``, a real floating dtype.
        k: Keys per token, at least 1; clamped to ``N``.
        similarity: ``"dot"`` product, ``"cosine"`` or negative squared ``"l2"`` distance.
        force_self: Whether a token always lists itself. Cosine and l2 do so of themselves; with the
            dot product a token of small norm may prefer others.
        regions: Integer labels, ``(G, N)`` with ``G`` dividing ``B``; window ``b`` has labels
            ``regions[b % G]``. Tokens pair only within a label. A label below 0 is padding: it lists
            nothing and is listed by none.
        backend: Implementation; ``"auto"`` takes the fastest that runs.

    Returns:
        The dictionary, to be shared by every head and layer that uses these features.

    Raises:
        TypeError: If ``x`` is not floating or ``regions`` not integer.
        ValueError: If a shape, ``k``, ``similarity`` or ``backend`` is invalid.

    Example:
        >>> import torch
        >>> x = torch.tensor([[[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]])
        >>> knn_dictionary(x, 2, similarity="cosine").allowed().int()
        tensor([[[1, 1, 0],
                 [1, 1, 0],
                 [0, 1, 1]]], dtype=torch.int32)

    Source: SemanIR, arXiv 2405.20008, Sec. 3: top-k of the self similarity of a window's tokens,
        taken once per stage. The paper names the dot product; regions, forced self and the tie rule
        are ours.
    """
    _check(x, k, similarity, regions)
    k = min(k, x.shape[1])
    chosen = choose("knn_dictionary", backend, IMPLEMENTATIONS, x, k, similarity, force_self, regions)
    # a graph keeps the precision of products that it is run with
    precise = contextlib.nullcontext() if torch.compiler.is_compiling() else ieee_products(x.device)
    with torch.no_grad(), autocast_off(x.device), precise:
        index = chosen.run(x, k, similarity, force_self, regions)
    # a row keeps itself at least, unless it is padding
    has_empty_rows = regions is not None and (hides_values(regions) or bool((regions < 0).any()))
    return KNNDictionary(index, x.shape[1], is_full=regions is None, has_empty_rows=has_empty_rows)


def explain_knn_dictionary(
    x: Tensor,
    k: int,
    *,
    similarity: Similarity = "dot",
    force_self: bool = True,
    regions: Tensor | None = None,
) -> dict[str, str | None]:
    """Return each backend's reason against this call; ``auto`` takes the first ``None``."""
    _check(x, k, similarity, regions)
    return explain(IMPLEMENTATIONS, x, min(k, x.shape[1]), similarity, force_self, regions)


def _check(x: Tensor, k: int, similarity: str, regions: Tensor | None) -> None:
    if not x.is_floating_point():
        raise TypeError(f"x must have a floating dtype, got {x.dtype=}")
    if x.ndim != 3 or x.shape[1] == 0:
        raise ValueError(f"x must be (B, N, C) with N >= 1, got shape {tuple(x.shape)}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if similarity not in get_args(Similarity):
        raise ValueError(f"similarity must be one of {get_args(Similarity)}, got {similarity!r}")
    if regions is None:
        return
    if regions.is_floating_point() or regions.is_complex():
        raise TypeError(f"regions must hold integer labels, got {regions.dtype=}")
    # shape[0], not len(): that would fix the number of windows in an exported graph
    wrong = regions.ndim != 2 or regions.shape[1] != x.shape[1] or 0 in regions.shape
    if wrong or x.shape[0] % regions.shape[0]:
        raise ValueError(
            "regions must be (G, N) with G dividing B, "
            f"got regions {tuple(regions.shape)} for x {tuple(x.shape)}"
        )
