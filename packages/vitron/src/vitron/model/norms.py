# SPDX-License-Identifier: Apache-2.0
"""RMS norms of a language model as one operation instead of six."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

__all__ = ["fuse_norms"]

# these compute weight * x / sqrt(mean(x^2) + eps), as torch does; others do not, such as Gemma's, which
# multiplies by 1 + weight
_SAME = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm")


def fuse_norms(model: nn.Module) -> int:
    """Replace RMS norms by :class:`torch.nn.RMSNorm`, in place.

    Weights keep their names. In half precision the product with the weight is rounded once instead of twice.

    Args:
        model: A language model; norms of other families stay.

    Returns:
        Number of replaced norms.
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
