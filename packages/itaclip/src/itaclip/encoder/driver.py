# SPDX-License-Identifier: Apache-2.0
"""Runs an image tower up to its last block, and leaves that one to a strategy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from itaclip.config import AttentionConfig, Positions
from itaclip.encoder.tower import Grid, Tower
from itaclip.inputs import CLIP_MEAN, CLIP_STD

QKV = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class BlockInput:
    """Input of a block.

    Attributes:
        x: Tokens, ``(B, N, C)``, prefix tokens first.
        qkv: Queries, keys and values, each ``(B, heads, N, head_dim)``.
        scale: Factor on the attention logits.
    """

    x: Tensor
    qkv: QKV
    scale: float


@dataclass(frozen=True, slots=True)
class LastInput(BlockInput):
    """Input of the last block, and what a strategy may need besides.

    Attributes:
        earlier: Inputs of the blocks that the strategy asked for, in its order.
        grid: Patches along height and width.
        images: Images ``(B, 3, H, W)`` as the tower got them, normalised.
        regions: Numbers of regions ``(B, H, W)`` of the same pixels, 0 for none; ``None`` unless the strategy
            needs them.
    """

    earlier: tuple[BlockInput, ...]
    grid: Grid
    images: Tensor
    regions: Tensor | None = None


class AttentionStrategy(ABC):
    """Attention of the last block: turns its input into features of the patches.

    Strategies are dataclasses whose fields are their options. They are found by name
    (:func:`itaclip.attention.build_attention`); other packages add theirs as entry points of the group
    ``itaclip.attention``.

    Attributes:
        has_towers: Whether other models take part, which a file of the image side cannot hold.
        needs_regions: Whether windows come with their part of the regions of the image.
    """

    has_towers: ClassVar[bool] = False
    needs_regions: ClassVar[bool] = False

    @classmethod
    def from_config(cls, config: AttentionConfig) -> Self:
        """Build the strategy from the options of a configuration.

        Raises:
            ValueError: If an option is unknown or invalid.
        """
        known = [each.name for each in fields(cls) if each.init]  # pyright: ignore[reportArgumentType] - a dataclass
        unknown = [name for name in config.options if name not in known]
        if unknown:
            have = f"the options {', '.join(known)}" if known else "no options"
            raise ValueError(f"attention {config.strategy} has {have}, got {', '.join(unknown)}")
        return cls(**config.options)

    def layers(self, num_blocks: int) -> tuple[int, ...]:
        """Return the blocks before the last whose inputs are kept, counted from 1.

        Args:
            num_blocks: Blocks of the tower, the last included.

        Raises:
            ValueError: If the tower has too few blocks.
        """
        return ()

    def load(self) -> None:  # noqa: B027 - most strategies need nothing besides
        """Load the models that are needed besides the encoder; called before that one is loaded.

        Raises:
            ModelNotFoundError: If one is not there.
            ValueError: If one cannot be used.
        """

    def bind(self, encoder: Encoder) -> None:
        """Bring everything besides the encoder to its device; called once before the first image.

        Raises:
            ModelNotFoundError: As :meth:`load`.
            ValueError: Likewise.
        """
        self.load()

    def find_regions(self, pixels: Tensor) -> Tensor:
        """Return the number of the region of every pixel of an image, 0 for none, ``(H, W)``.

        Called once for each image of a strategy that ``needs_regions``; the label map is corrected by them.

        Args:
            pixels: The image at its own size, ``(3, H, W)``, RGB in [0, 1].
        """
        raise NotImplementedError(f"{type(self).__name__} needs regions and does not find them")

    @abstractmethod
    def features(self, last: LastInput, encoder: Encoder) -> Tensor:
        """Return the feature of every patch in the space of the texts, not normalised.

        Args:
            last: Input of the last block.
            encoder: The image tower.

        Returns:
            ``(B, D, height, width)``, in patches of the tower or on another grid over the same pixels.
        """

    def attention_map(self, last: LastInput, encoder: Encoder) -> Tensor:
        """Return the attention map itself, ``(B, heads, N, N)``; prefix tokens first.

        Raises:
            ValueError: If the strategy has no such map.
        """
        raise ValueError(f"{type(self).__name__} has no attention map of all tokens")


class Encoder:
    """Turns images into one feature per patch, in the embedding space of the texts.

    Args:
        tower: The image tower in steps.
        mean: Mean of the channels that normalised images were subtracted, in [0, 1].
        std: Standard deviation that they were divided by.
    """

    def __init__(
        self, tower: Tower, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD
    ) -> None:
        self.tower = tower
        self.mean, self.std = tuple(mean), tuple(std)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch, in pixels."""
        return self.tower.patch_size

    @property
    def device(self) -> torch.device:
        """Device of the tower."""
        return self.tower.device

    def __call__(
        self,
        images: Tensor,
        attention: AttentionStrategy,
        *,
        positions: Positions = "legacy",
        regions: Tensor | None = None,
    ) -> Tensor:
        """Return the feature of every patch, not normalised.

        Args:
            images: ``(B, 3, H, W)``, normalised, any size of at least one patch.
            attention: Attention of the last block.
            positions: Interpolation of position embeddings.
            regions: Numbers of regions ``(B, H, W)``, for a strategy that needs them.

        Returns:
            ``(B, D, height, width)`` in patches.
        """
        last = self.prepare(images, attention, positions=positions)
        return attention.features(last if regions is None else replace(last, regions=regions), self)

    def prepare(
        self, images: Tensor, attention: AttentionStrategy, *, positions: Positions = "legacy"
    ) -> LastInput:
        """Run every block but the last, and return the input of that one."""
        tower = self.tower
        wanted = attention.layers(tower.num_blocks)
        x, grid = tower.embed(images, positions)
        kept: dict[int, BlockInput] = {}
        for block in range(tower.num_blocks - 1):
            q, k, v = tower.qkv(block, x, grid)
            scale = tower.scale(block)
            if block + 1 in wanted:
                kept[block + 1] = BlockInput(x, (q, k, v), scale)
            y = F.scaled_dot_product_attention(q, k, v, scale=scale)
            x = x + tower.project(block, y, x)
            x = x + tower.feed_forward(block, x)
        last = tower.num_blocks - 1
        earlier = tuple(kept[layer] for layer in wanted)
        return LastInput(x, tower.qkv(last, x, grid), tower.scale(last), earlier, grid, images)

    def attention_map(
        self, images: Tensor, attention: AttentionStrategy, *, positions: Positions = "legacy"
    ) -> Tensor:
        """Return the map of the last block, ``(B, heads, N, N)``; prefix tokens first.

        Raises:
            ValueError: If the strategy has no such map.
        """
        return attention.attention_map(self.prepare(images, attention, positions=positions), self)

    def to_maps(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Drop the prefix tokens and lay out the rest, ``(B, N, D)`` to ``(B, D, height, width)``."""
        return tokens[:, self.tower.num_prefix :].transpose(1, 2).unflatten(2, grid)

    def to_pixels(self, images: Tensor) -> Tensor:
        """Undo the normalisation of images: RGB in [0, 1], as other towers normalise in their own way."""
        mean, std = (images.new_tensor(each).view(3, 1, 1) for each in (self.mean, self.std))
        return images * std + mean
