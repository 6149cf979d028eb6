# SPDX-License-Identifier: Apache-2.0
"""Image towers, taken apart into the steps that the driver runs."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from itaclip.config import Positions

Grid = tuple[int, int]


class Tower(ABC):
    """One image tower taken apart into steps; holds a reference to it and changes nothing.

    Attributes:
        num_blocks: Transformer blocks.
        num_prefix: Class and register tokens in front of the patches.
        patch_size: Height and width of a patch, in pixels.
        native_grid: Patches along height and width at the training size.
    """

    num_blocks: int
    num_prefix: int
    patch_size: tuple[int, int]
    native_grid: Grid

    def __init__(self) -> None:
        self._positions: dict[tuple[Grid, Positions], Tensor] = {}

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the patch embedding, which images are cast to."""
        return self.patch_conv.weight.dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.patch_conv.weight.device

    @property
    @abstractmethod
    def patch_conv(self) -> nn.Conv2d:
        """Convolution that turns patches into tokens."""

    @property
    @abstractmethod
    def position_table(self) -> Tensor | None:
        """Learnt positions ``(rows + patches, C)``, where rows is ``num_prefix`` or 0."""

    @abstractmethod
    def assemble(self, patches: Tensor, positions: Tensor | None) -> Tensor:
        """Add positions and prefix tokens to ``(B, patches, C)`` and normalise, ``(B, N, C)``."""

    @abstractmethod
    def qkv(self, block: int, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of a block's input, each ``(B, heads, N, head_dim)``."""

    @abstractmethod
    def normed(self, block: int, x: Tensor) -> Tensor:
        """Return the normalised input of a block's attention, ``(B, N, C)``."""

    @abstractmethod
    def scale(self, block: int) -> float:
        """Factor on the attention logits of a block."""

    @abstractmethod
    def project(self, block: int, y: Tensor, x: Tensor) -> Tensor:
        """Turn attended values ``(B, heads, N, head_dim)`` into the block's attention branch ``(B, N, C)``.

        Args:
            block: Number of the block, from 0.
            y: Attended values.
            x: Input of the block, for towers with gated attention.
        """

    @abstractmethod
    def feed_forward(self, block: int, x: Tensor) -> Tensor:
        """Return the feed-forward branch of a block, ``(B, N, C)``."""

    @abstractmethod
    def to_text_space(self, x: Tensor) -> Tensor:
        """Project every token as the pooled token is projected, ``(B, N, C)`` to ``(B, N, D)``."""

    def embed(self, images: Tensor, mode: Positions) -> tuple[Tensor, Grid]:
        """Return the first block's input and the grid of patches.

        Args:
            images: ``(B, 3, H, W)``, normalised; pixels beyond whole patches do not count.
            mode: Interpolation of position embeddings.

        Returns:
            Tokens ``(B, N, C)``, prefix first, and the grid.
        """
        patches = self.patch_conv(images.to(self.dtype))
        grid = (patches.shape[-2], patches.shape[-1])
        return self.assemble(patches.flatten(2).transpose(1, 2), self.positions(grid, mode)), grid

    def positions(self, grid: Grid, mode: Positions) -> Tensor | None:
        """Return the position embeddings of a grid, ``(rows + patches, C)``."""
        table = self.position_table
        if table is None:
            return None
        rows = table.shape[0] - self.native_grid[0] * self.native_grid[1]
        if grid == self.native_grid:
            return table
        key = (grid, mode)
        cached = self._positions.get(key)
        if cached is None or cached.dtype != table.dtype or cached.device != table.device:
            cached = resize_positions(table.detach(), self.native_grid, grid, num_prefix=rows, mode=mode)
            self._positions[key] = cached
        return cached


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Return ``(B, N, heads * head_dim)`` as ``(B, heads, N, head_dim)``."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(y: Tensor) -> Tensor:
    """Return ``(B, heads, N, head_dim)`` as ``(B, N, heads * head_dim)``."""
    return y.transpose(1, 2).flatten(2)


def resize_positions(
    table: Tensor, native: tuple[int, int], grid: tuple[int, int], *, num_prefix: int, mode: str = "legacy"
) -> Tensor:
    """Fit learnt position embeddings to another grid of patches.

    Args:
        table: ``(num_prefix + native height * native width, C)``; the prefix rows stay as they are.
        native: Height and width of the table's grid, in patches.
        grid: Height and width of the target grid.
        num_prefix: Rows for class and register tokens.
        mode: ``"legacy"``: bicubic by the factor ``(n + 0.1) / native``, and no change at all whenever the
            number of patches agrees; ``"size"``: bicubic to the size, and no change where the grid agrees.

    Returns:
        ``(num_prefix + height * width, C)``.
    """
    same = grid[0] * grid[1] == native[0] * native[1] if mode == "legacy" else grid == native
    if same:
        return table
    prefix, patches = table[:num_prefix], table[num_prefix:]
    image = patches.reshape(1, *native, -1).permute(0, 3, 1, 2)  # (1, C, height, width)
    image = image.to(torch.promote_types(table.dtype, torch.float32))
    if mode == "legacy":
        factors = [(n + 0.1) / side for n, side in zip(grid, native, strict=True)]
        resized = F.interpolate(image, scale_factor=factors, mode="bicubic")
    else:
        resized = F.interpolate(image, size=grid, mode="bicubic")
    rows = resized.permute(0, 2, 3, 1).reshape(grid[0] * grid[1], -1)  # (height * width, C)
    return torch.cat([prefix, rows.to(table.dtype)])
