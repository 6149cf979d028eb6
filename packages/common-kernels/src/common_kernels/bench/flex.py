# SPDX-License-Identifier: Apache-2.0
"""FlexAttention under the packed dictionary, and the order of tokens that suits it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common_kernels.bench.case import Contender, Inputs

_TOKENS_PER_CLUSTER = 64
_ITERATIONS = 6


def flex_attention_contender(head_dim: int, *, trains: bool) -> Contender:
    """Return FlexAttention with the blocks that hold a listed pair, compiled for one shape.

    Args:
        head_dim: Channels per head; other numbers than powers of two are left out.
        trains: Whether it has a backward here.
    """
    compiled: list[Callable[..., Tensor]] = []

    def prepare(inputs: Inputs) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        if not compiled:
            # every size is compiled anew, and torch gives up on a function after a few
            torch.compiler.reset()
            compiled.append(torch.compile(flex_attention, dynamic=False))
        dictionary = inputs.shared
        bits, M = dictionary.bits(), dictionary.num_keys

        def listed(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return ((bits[b, query, key // 32] >> (key % 32)) & 1) != 0

        B, N = bits.shape[:2]
        return create_block_mask(listed, B, None, N, M, device=bits.device.type)

    def run(leaves: Mapping[str, Tensor], blocks: Any) -> Tensor:
        return compiled[0](leaves["q"], leaves["k"], leaves["v"], block_mask=blocks)

    def why_not(inputs: Inputs) -> str | None:
        if head_dim & (head_dim - 1) == 0:
            return None
        return "a head_dim that is no power of two is not compiled here"

    return Contender("FlexAttention", "peer", run, prepare, why_not, trains=trains)


def cluster_order(features: Tensor) -> Tensor:
    """Order the tokens of each window such that similar ones stand together.

    Args:
        features: ``(B, N, C)``.

    Returns:
        ``(B, N)``, int64: the token at each place. Clusters of about 64 tokens, found by k-means on the unit
        sphere, stand in the order of their centres along the first principal axis.
    """
    N = features.shape[1]
    x = F.normalize(features.float() - features.float().mean(dim=1, keepdim=True), dim=-1)
    count = max(1, N // _TOKENS_PER_CLUSTER)
    centres = x[:, :: N // count][:, :count]  # (B, count, C)
    for _ in range(_ITERATIONS):
        nearest = (x @ centres.mT).argmax(dim=-1)  # (B, N)
        sums = torch.zeros_like(centres).scatter_add_(1, nearest.unsqueeze(-1).expand_as(x), x)
        centres = F.normalize(sums, dim=-1)
    nearest = (x @ centres.mT).argmax(dim=-1)
    spread = centres - centres.mean(dim=1, keepdim=True)
    axis = torch.linalg.svd(spread, full_matrices=False).Vh[:, :1]  # (B, 1, C)
    rank = (spread @ axis.mT).squeeze(-1).argsort(dim=-1).argsort(dim=-1)  # (B, count)
    return rank.gather(1, nearest).argsort(dim=-1, stable=True)
