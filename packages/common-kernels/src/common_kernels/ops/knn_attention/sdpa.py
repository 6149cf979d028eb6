# SPDX-License-Identifier: Apache-2.0
"""Dense attention under the cached float mask, through torch's fused kernel."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from common_kernels.ops.knn_dictionary import KNNDictionary


def knn_attention_sdpa(
    q: Tensor, k: Tensor, v: Tensor, dictionary: KNNDictionary, bias: Tensor | None, scale: float
) -> Tensor:
    """Return ``(B, heads, N, head_dim)`` in the dtype of ``q``.

    A key that is not listed gets weight 0, so a NaN or infinity in its value reaches every row of its
    window; the other backends keep it out.
    """
    mask = dictionary.float_mask(q.dtype)  # (B, 1, N, M)
    if bias is not None:
        mask = mask + bias.to(q.dtype)  # (B, heads, N, M)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    if dictionary.has_empty_rows:
        out = out.masked_fill(dictionary.empty_rows()[:, None, :, None], 0.0)
    return out
