# SPDX-License-Identifier: Apache-2.0
"""Runs an image tower with another last block."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from itaclip.config import AttentionConfig, Positions
from itaclip.encoder.attention import Term, explicit_map, fused_attention, make_terms
from itaclip.encoder.tower import Grid, Tower
from itaclip.functional import gaussian_bias


@dataclass(frozen=True, slots=True)
class LastInput:
    """What the last block works on.

    Attributes:
        x: Its input, ``(B, N, C)``.
        qkv: Its queries, keys and values, each ``(B, heads, N, head_dim)``.
        mids: Queries, keys and values of the mid layers, and the scale of their logits.
        grid: Patches along height and width.
    """

    x: Tensor
    qkv: tuple[Tensor, Tensor, Tensor]
    mids: tuple[tuple[tuple[Tensor, Tensor, Tensor], float], ...]
    grid: Grid

    @staticmethod
    def cat(parts: list[LastInput]) -> LastInput:
        """Join batches of one grid."""
        if len(parts) == 1:
            return parts[0]

        def joined(each: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
            q, k, v = (torch.cat(side) for side in zip(*each, strict=True))
            return q, k, v

        mids = tuple(
            (joined([part.mids[i][0] for part in parts]), scale) for i, (_, scale) in enumerate(parts[0].mids)
        )
        x = torch.cat([part.x for part in parts])
        return LastInput(x, joined([part.qkv for part in parts]), mids, parts[0].grid)


class Encoder:
    """Turns images into one feature per patch, in the space of the texts.

    Args:
        tower: The image tower in steps.
    """

    def __init__(self, tower: Tower) -> None:
        self.tower = tower

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch, in pixels."""
        return self.tower.patch_size

    @property
    def native_size(self) -> tuple[int, int]:
        """Height and width that the tower was trained at, in pixels."""
        rows, columns = self.tower.native_grid
        return rows * self.patch_size[0], columns * self.patch_size[1]

    @property
    def device(self) -> torch.device:
        """Where the tower is."""
        return self.tower.device

    def __call__(
        self, images: Tensor, attention: AttentionConfig, *, positions: Positions = "legacy"
    ) -> Tensor:
        """Return the feature of every patch, not normalised.

        Args:
            images: ``(B, 3, H, W)``, normalised, any size of at least one patch.
            attention: The last block.
            positions: How position embeddings fit another size.

        Returns:
            ``(B, D, height, width)`` in patches.
        """
        last = self.prepare(images, attention, positions=positions)
        return self.to_maps(self.tokens(last, attention), last.grid)

    def prepare(
        self, images: Tensor, attention: AttentionConfig, *, positions: Positions = "legacy"
    ) -> LastInput:
        """Run every block but the last, and keep what its mixed attention needs."""
        tower = self.tower
        wanted = () if attention.value_only else attention.resolve_layers(tower.num_blocks)
        x, grid = tower.embed(images, positions)
        kept: dict[int, tuple[tuple[Tensor, Tensor, Tensor], float]] = {}
        for block in range(tower.num_blocks - 1):
            q, k, v = tower.qkv(block, x, grid)
            scale = tower.scale(block)
            if block + 1 in wanted:
                kept[block + 1] = ((q, k, v), scale)
            y = F.scaled_dot_product_attention(q, k, v, scale=scale)
            x = x + tower.project(block, y, x)
            x = x + tower.feed_forward(block, x)
        qkv = tower.qkv(tower.num_blocks - 1, x, grid)
        return LastInput(x, qkv, tuple(kept[layer] for layer in wanted), grid)

    def tokens(self, last: LastInput, attention: AttentionConfig, *, offsets: Tensor | None = None) -> Tensor:
        """Run the last block and the way into text space.

        Args:
            last: From :meth:`prepare`.
            attention: The one given there.
            offsets: ``(B, 2)``, place of each image's first patch in patches of a common picture: the images
                are then windows of it and attend to each other (stitched). ``None`` keeps them apart.

        Returns:
            ``(B, N, D)``, prefix tokens first, not normalised.
        """
        block = self.tower.num_blocks - 1
        v = last.qkv[2]
        if attention.value_only:
            y = v * attention.gain
        elif offsets is None:
            y = fused_attention(self.terms(last, attention), v)
        else:
            joint = LastInput(
                last.x,
                _together(last.qkv),
                tuple((_together(qkv), scale) for qkv, scale in last.mids),
                last.grid,
            )
            y = fused_attention(self.terms(joint, attention, offsets), joint.qkv[2])
            y = y[0].unflatten(1, (len(v), -1)).transpose(0, 1)  # (B, heads, N, head_dim)
        branch = self.tower.project(block, y, last.x)
        x = last.x + branch if attention.residual else branch
        if attention.ffn:
            x = x + self.tower.feed_forward(block, x)
        return self.tower.to_text_space(x)

    def terms(self, last: LastInput, attention: AttentionConfig, offsets: Tensor | None = None) -> list[Term]:
        """Return the maps that the last block sums, with their weights.

        Args:
            last: From :meth:`prepare`.
            attention: The one given there.
            offsets: As in :meth:`tokens`.
        """
        bias = None
        if attention.locality:
            places = self._places(last.grid, offsets, last.x.device)
            bias = gaussian_bias(places, places, attention.locality).to(last.x.dtype)
        share = attention.mid_weight if last.mids else 0.0
        terms = make_terms(
            last.qkv,
            attention.pairs,
            (1 - share) * attention.gain,
            self.tower.scale(self.tower.num_blocks - 1),
            bias,
        )
        pairs = attention.pairs if attention.mid_pairs is None else attention.mid_pairs
        for qkv, scale in last.mids:
            terms += make_terms(qkv, pairs, share / len(last.mids) * attention.gain, scale)
        return terms

    def attention_map(
        self, images: Tensor, attention: AttentionConfig, *, positions: Positions = "legacy"
    ) -> Tensor:
        """Return the mixed map of the last block, ``(B, heads, N, N)``; prefix tokens first.

        Raises:
            ValueError: If the block does not attend.
        """
        if attention.value_only:
            raise ValueError("value_only has no attention map")
        return explicit_map(self.terms(self.prepare(images, attention, positions=positions), attention))

    def pooled(self, images: Tensor) -> Tensor:
        """Return the model's own embedding of images, as the untouched tower pools them.

        Args:
            images: ``(B, 3, H, W)``, normalised; resized to the size the tower was trained at.

        Returns:
            ``(B, D)``, not normalised.
        """
        size = self.native_size
        if tuple(images.shape[-2:]) != size:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        return self.tower.pooled(images)

    def to_maps(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Drop the prefix tokens and lay out the rest, ``(B, N, D)`` to ``(B, D, height, width)``."""
        return tokens[:, self.tower.num_prefix :].transpose(1, 2).unflatten(2, grid)

    def _places(self, grid: Grid, offsets: Tensor | None, device: torch.device) -> Tensor:
        """Return where each token is, ``(N, 2)`` or ``(B * N, 2)`` in patches; NaN for prefix tokens."""
        rows, columns = (torch.arange(n, device=device, dtype=torch.float32) for n in grid)
        patches = torch.cartesian_prod(rows, columns)
        nowhere = patches.new_full((self.tower.num_prefix, 2), torch.nan)
        places = torch.cat([nowhere, patches])  # (N, 2)
        if offsets is None:
            return places
        return (places + offsets.to(places)[:, None]).flatten(0, 1)


def _together(qkv: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Put the tokens of all windows into one row, ``(1, heads, B * N, head_dim)``."""
    q, k, v = (part.transpose(0, 1).flatten(1, 2).unsqueeze(0) for part in qkv)
    return q, k, v


__all__ = ["Encoder", "LastInput"]
