# SPDX-License-Identifier: Apache-2.0
"""Operations of the registered operators, for ``FlopCounterMode(custom_mapping=FLOP_FORMULAS)`` of torch.

They are not registered with torch at import: its counter imports triton, and warns where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# registers the operators
import common_kernels.ops.knn_attention  # noqa: F401  # pyright: ignore[reportUnusedImport]

Formula = Callable[..., int]


def _csr_forward(q: torch.Size, *shapes: Any, **_: Any) -> int:
    """Return the operations of a forward: two products with the listed keys."""
    B, heads, N, head_dim = q
    columns = shapes[2]  # after k and v
    return 4 * B * heads * N * columns[-1] * head_dim


def _csr_backward(dout: torch.Size, *shapes: Any, **_: Any) -> int:
    """Return the operations of a backward: four products with the listed keys."""
    B, heads, N, head_dim = dout
    columns = shapes[5]  # after q, k, v, out and the weights
    return 8 * B * heads * N * columns[-1] * head_dim


def _native_forward(q: torch.Size, *shapes: Any, **_: Any) -> int:
    """Return the operations of a forward: two products with the listed keys."""
    B, heads, N, head_dim = q
    lists = shapes[3]  # after k, v and the bias
    return 4 * B * heads * N * lists[-1] * head_dim


def _native_backward(dout: torch.Size, *shapes: Any, **_: Any) -> int:
    """Return the operations of a backward: five products, as the logits are computed again."""
    B, heads, N, head_dim = dout
    lists = shapes[6]  # after q, k, v, out, the denominators and the bias
    return 10 * B * heads * N * lists[-1] * head_dim


FLOP_FORMULAS: dict[Any, Formula] = {
    torch.ops.common_kernels.knn_attention_csr_fwd: _csr_forward,
    torch.ops.common_kernels.knn_attention_csr_bwd: _csr_backward,
    torch.ops.common_kernels.knn_attention_native_fwd: _native_forward,
    torch.ops.common_kernels.knn_attention_native_bwd: _native_backward,
}
