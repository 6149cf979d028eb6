# SPDX-License-Identifier: Apache-2.0
"""Key-semantic attention and its position terms."""

from __future__ import annotations

import math
from typing import Literal

import torch
from common_kernels import Backend, KNNDictionary, knn_attention
from torch import Tensor, nn

from semanir.functional import relative_coordinates


class ContinuousPositionBias(nn.Module):
    """Relative position bias computed by a small MLP, for any window size.

    Args:
        num_heads: Number of heads.
        hidden_dim: Width of the MLP.

    Shape:
        - window_size: an int ``M``
        - output: ``(heads, M * M, M * M)``, in (0, 16)

    Source: Swin Transformer V2, arXiv 2111.09883, Sec. 3.3.
    """

    def __init__(self, num_heads: int, hidden_dim: int = 512) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, num_heads, bias=False)
        )

    def forward(self, window_size: int) -> Tensor:  # noqa: D102
        weight = next(self.parameters())
        coordinates = relative_coordinates(window_size, weight.device).to(weight.dtype)
        table = 16 * torch.sigmoid(self.mlp(coordinates)).T  # (heads, offsets)
        M = window_size
        reversed_table = table.unflatten(1, (2 * M - 1, 2 * M - 1)).flip(1, 2)
        # (heads, y, x, v, u): the offset from key (v, u) to query (y, x), queries counted from the last
        bias = reversed_table.unfold(1, M, 1).unfold(2, M, 1).contiguous()
        return bias.view(-1, M * M, M * M).flip(1)


class KeySemanticAttention(nn.Module):
    """Multi-head self-attention in which each token sees only the keys of the shared dictionary.

    Args:
        dim: Channels ``C`` of the token stream.
        num_heads: Number of heads; must divide ``dim``.
        window_size: Side ``M`` of a window; ``N = M * M`` tokens.
        logits: ``"cosine"`` with a learnt scale per head, or ``"scaled"`` dot products.
        position_bias: ``"mlp"``, ``"vectors"`` or ``"none"``.

    Shape:
        - x: ``(windows, N, C)``; the dictionary holds as many windows
        - output: ``(windows, N, C)``

    Source: SemanIR, arXiv 2405.20008, Sec. 3; cosine logits after arXiv 2111.09883.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        window_size: int,
        logits: Literal["cosine", "scaled"] = "cosine",
        position_bias: Literal["mlp", "vectors", "none"] = "mlp",
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads must divide dim, got {dim=} and {num_heads=}")
        self.num_heads = num_heads
        self.window_size = window_size
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.position_bias = ContinuousPositionBias(num_heads) if position_bias == "mlp" else None
        self.position_vectors = None
        if position_bias == "vectors":
            shape = (2, num_heads, window_size**2, dim // num_heads)
            self.position_vectors = nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))
        self.logit_scale = (
            nn.Parameter(torch.full((num_heads,), math.log(10))) if logits == "cosine" else None
        )

    def forward(self, x: Tensor, dictionary: KNNDictionary, *, backend: Backend = "auto") -> Tensor:  # noqa: D102
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, N, 3, heads, head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, head_dim)
        if self.position_vectors is not None:
            q = q + self.position_vectors[0]
            k = k + self.position_vectors[1]
        bias = self.position_bias(self.window_size) if self.position_bias is not None else None
        cosine = self.logit_scale is not None
        scale = self.logit_scale.clamp(max=math.log(100)).exp() if self.logit_scale is not None else None
        y = knn_attention(q, k, v, dictionary, bias=bias, scale=scale, cosine=cosine, backend=backend)
        return self.proj(y.transpose(1, 2).flatten(2))  # (B, N, C)
