# SPDX-License-Identifier: Apache-2.0
"""Norms of a language model in one operation instead of six."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

__all__ = ["fuse_norms"]

# of these it is known that they compute weight * x / sqrt(mean(x^2) + eps), as torch does; others, as those
# of Gemma with 1 + weight, do not
_SAME = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")


def fuse_norms(model: nn.Module) -> int:
    """Let :class:`torch.nn.RMSNorm` take the place of norms that compute the same, in place.

    Weights keep their names. In half precision the product with the weight is rounded once instead of twice.

    Args:
        model: A language model; norms of families that are not known stay.

    Returns:
        How many were replaced.
    """
    found = [
        (parent, name, norm)
        for parent in model.modules()
        for name, norm in parent.named_children()
        if type(norm).__name__ in _SAME
    ]
    for parent, name, norm in found:
        weight, eps = norm.get_parameter("weight"), cast(Any, norm).variance_epsilon
        fused = nn.RMSNorm(weight.shape, eps=eps, device="meta")
        fused.weight = weight
        setattr(parent, name, fused)
    return len(found)
