# SPDX-License-Identifier: Apache-2.0
"""SC-CLIP: anomalous patches replaced, similarities of earlier blocks in the last one, fused levels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from itaclip.attention.proxy import proxy_map
from itaclip.encoder.driver import AttentionStrategy, Encoder, LastInput
from itaclip.encoder.tower import Grid

_EPS = 1e-12


@dataclass(frozen=True, kw_only=True)
class SelfCalibratedAttention(AttentionStrategy):
    """Attention calibrated by CLIP's own earlier blocks; strategy ``"scclip"``.

    Residual and feed-forward half of the block are dropped, but for a share of the class token. Towers of
    another depth than 12 take blocks at the same relative depth.

    Args:
        neighbours: Nearest patches to which the density around a patch is compared.
        anomalies: Share of the patches that are replaced by the mean of their neighbours on the grid.
        threshold: Cosine below which two patches do not take from each other.
        class_share: Weight of the class token in every patch.

    Raises:
        ValueError: If a number is out of range.

    Source: SC-CLIP, arXiv 2411.15869, and its published code: similarities are those of the output of block
        9 of 12, those for the last step of block 4, and the levels fused are outputs 4 to 10.
    """

    neighbours: int = 30
    anomalies: float = 0.05
    threshold: float = 0.4
    class_share: float = 0.3

    def __post_init__(self) -> None:
        if self.neighbours < 1 or not 0 <= self.anomalies < 1:
            raise ValueError(
                "neighbours must be at least 1 and anomalies lie in [0, 1), "
                f"got {self.neighbours} and {self.anomalies}"
            )

    def layers(self, num_blocks: int) -> tuple[int, ...]:
        """Return the block whose input has the similarities, and those whose inputs are fused."""
        if num_blocks < 2:
            raise ValueError("the tower must have a block before the last")
        middle, first = (min(max(1, round(depth * num_blocks / 12)), num_blocks - 1) for depth in (10, 5))
        return (middle, *range(first, num_blocks))

    def features(self, last: LastInput, encoder: Encoder) -> Tensor:
        """Return the feature of every patch, ``(B, D, height, width)``."""
        start = encoder.tower.num_prefix
        middle, *levels = (block.x for block in last.earlier)
        anomalous = find_anomalies(last.x[:, start:], self.neighbours, self.anomalies)
        deep, middle = (mend(x[:, start:], anomalous, last.grid) for x in (last.x, middle))
        proxy = proxy_map(middle.mT.unflatten(2, last.grid), beta=1.0, gamma=3.0).to(deep.dtype)
        deep = gather(deep, middle, self.threshold)
        fused = torch.stack(levels).sum(dim=0)
        streams = (torch.cat([last.x[:, :start], deep], dim=1), fused)
        branches = [
            gather(self._branch(x, proxy, last, encoder), levels[0][:, start:], self.threshold)
            for x in streams
        ]
        tokens = encoder.tower.to_text_space(branches[0] + branches[1])
        return tokens.mT.unflatten(2, last.grid)

    def _branch(self, x: Tensor, proxy: Tensor, last: LastInput, encoder: Encoder) -> Tensor:
        """Attention branch of the last block on the patches of ``x (B, N, C)``, ``(B, patches, C)``."""
        tower, start = encoder.tower, encoder.tower.num_prefix
        block = tower.num_blocks - 1
        _, k, v = (each[:, :, start:] for each in tower.qkv(block, x, last.grid))
        own = (k @ k.mT * last.scale).softmax(dim=-1)
        branch = tower.project(block, (proxy[:, None] + own) / 2 @ v, x[:, start:])
        return branch + self.class_share * x[:, :1] if start else branch


def find_anomalies(x: Tensor, neighbours: int, share: float) -> Tensor:
    """Return which patches lie apart from the others of their image.

    The score is the mean over a patch's neighbours of their density over its own, where a density is the
    inverse squared distance to the farthest of the neighbours; patches above the quantile are anomalous.

    Args:
        x: ``(B, N, C)``.
        neighbours: Number of nearest patches, all others at most.
        share: Share of the patches that are anomalous.

    Returns:
        ``(B, N)``, bool.

    Source: published code of SC-CLIP; the local outlier factor proper takes the larger of this distance and
        that of the neighbour.
    """
    count = min(neighbours, x.shape[1] - 1)
    near = torch.cdist(x.float(), x.float()).square().topk(count + 1, largest=False)
    reach = near.values[..., -1]  # (B, N)
    places = near.indices[..., 1:]  # (B, N, count), without the patch itself
    theirs = reach[:, None].expand(-1, x.shape[1], -1).gather(2, places)
    # patches that are all alike have no distance: none of them is apart
    score = ((reach[..., None] + _EPS) / (theirs + _EPS)).mean(dim=-1)
    return score > score.quantile(1 - share, dim=-1, keepdim=True)


def mend(x: Tensor, anomalous: Tensor, grid: Grid) -> Tensor:
    """Replace anomalous patches by the mean of those of their eight neighbours that are not.

    Args:
        x: ``(B, N, C)``.
        anomalous: ``(B, N)``, bool.
        grid: Patches along height and width.

    Returns:
        ``(B, N, C)``; a patch without such a neighbour stays as it is.
    """
    sound = (~anomalous).to(x.dtype).unflatten(1, grid)[:, None]  # (B, 1, height, width)
    maps = x.mT.unflatten(2, grid) * sound
    # the patch itself counts nothing, as it is zeroed where it is replaced
    sums = F.avg_pool2d(maps, 3, stride=1, padding=1, divisor_override=1)
    count = F.avg_pool2d(sound, 3, stride=1, padding=1, divisor_override=1)
    means = (sums / count.clamp(min=1)).flatten(2).mT
    replaced = anomalous & (count.flatten(1) > 0)
    return torch.where(replaced[..., None], means, x)


def gather(x: Tensor, source: Tensor, threshold: float) -> Tensor:
    """Average patches by the cosines of others, from a threshold on.

    Args:
        x: ``(B, N, C)``.
        source: Patches that are compared, ``(B, N, C)``.
        threshold: Least cosine.
    """
    unit = F.normalize(source.float(), dim=-1)
    cosines = unit @ unit.mT
    weights = cosines.masked_fill(cosines < threshold, 0)
    return (weights / (weights.sum(dim=-1, keepdim=True) + 1e-6)).to(x.dtype) @ x
