# SPDX-License-Identifier: Apache-2.0
"""An image tower with a memory: rows of the study differ mostly in the last block."""

from __future__ import annotations

from hashlib import blake2b

import torch
from itaclip.config import Positions
from itaclip.encoder import AttentionStrategy, BlockInput, Encoder, LastInput
from itaclip.encoder.tower import Tower
from torch import Tensor
from torch.nn import functional as F

from recipes.segmentation.prior import pooled

# features are smaller than the inputs of all blocks
_FEATURES_PER_INPUTS = 6


class RememberingEncoder(Encoder):
    """Gives what :class:`itaclip.encoder.Encoder` gives, and runs each image through the blocks once.

    Kept are the inputs of all blocks and the model's own embedding of every image, until :meth:`forget`, and
    the features of the latest attention, so that one image can be matched with several lists of classes.

    Args:
        tower: The image tower.
        most: Images that are kept; later ones are encoded each time. One of 64 px has 250 kB in a tower
            of 6 blocks of 160 channels.
    """

    def __init__(self, tower: Tower, most: int = 10_000) -> None:
        super().__init__(tower)
        self.most = most
        self._inputs: dict[bytes, Tensor] = {}
        self._features: dict[bytes, Tensor] = {}
        self._pooled: dict[bytes, Tensor] = {}
        self._attention: AttentionStrategy | None = None

    @property
    def is_crowded(self) -> bool:
        """Whether so much is kept that another sample may find no place."""
        return 2 * len(self._inputs) > self.most

    def forget(self) -> None:
        """Drop everything that is kept."""
        self._inputs.clear()
        self._features.clear()
        self._pooled.clear()

    def __call__(
        self,
        images: Tensor,
        attention: AttentionStrategy,
        *,
        positions: Positions = "legacy",
        regions: Tensor | None = None,
    ) -> Tensor:
        """Return the feature of every patch, as the base class does; what depends on regions is not kept."""
        if regions is not None:
            return super().__call__(images, attention, positions=positions, regions=regions)
        if attention != self._attention:
            self._features.clear()
            self._attention = attention
        keys = _keys(images, positions)
        new = _missing(keys, self._features)
        if new:
            features = super().__call__(images[new], attention, positions=positions)
            found = dict(zip((keys[i] for i in new), features, strict=True))
            if len(self._features) + len(found) <= _FEATURES_PER_INPUTS * self.most:
                self._features |= found
        else:
            found = {}
        return torch.stack([found[key] if key in found else self._features[key] for key in keys])

    def prepare(
        self, images: Tensor, attention: AttentionStrategy, *, positions: Positions = "legacy"
    ) -> LastInput:
        """Run every block but the last, unless it is known what comes out."""
        tower = self.tower
        wanted = attention.layers(tower.num_blocks)
        grid = (images.shape[-2] // self.patch_size[0], images.shape[-1] // self.patch_size[1])
        inputs = self._block_inputs(images, positions)  # (blocks, B, N, C)
        last = tower.num_blocks - 1
        kept: dict[int, BlockInput] = {}
        for layer in wanted:
            x = inputs[layer - 1]
            kept[layer] = BlockInput(x, tower.qkv(layer - 1, x, grid), tower.scale(layer - 1))
        earlier = tuple(kept[layer] for layer in wanted)
        qkv = tower.qkv(last, inputs[last], grid)
        return LastInput(inputs[last], qkv, tower.scale(last), earlier, grid, images)

    def pooled(self, images: Tensor) -> Tensor:
        """Return the model's own embeddings of images; one is too small to count."""
        keys = _keys(images, "legacy")
        new = _missing(keys, self._pooled)
        if new:
            self._pooled |= dict(zip((keys[i] for i in new), pooled(self.tower, images[new]), strict=True))
        return torch.stack([self._pooled[key] for key in keys])

    def _block_inputs(self, images: Tensor, positions: Positions) -> Tensor:
        keys = _keys(images, positions)
        new = _missing(keys, self._inputs)
        if new:
            computed = self._run_blocks(images[new], positions)  # (n, blocks, N, C)
            found = dict(zip((keys[i] for i in new), computed, strict=True))
            if len(self._inputs) + len(found) <= self.most:
                self._inputs |= found
        else:
            found = {}
        rows = [found[key] if key in found else self._inputs[key] for key in keys]
        return torch.stack(rows, dim=1)

    def _run_blocks(self, images: Tensor, positions: Positions) -> Tensor:
        tower = self.tower
        x, grid = tower.embed(images, positions)
        inputs = [x]
        for block in range(tower.num_blocks - 1):
            x = inputs[-1]
            q, k, v = tower.qkv(block, x, grid)
            y = F.scaled_dot_product_attention(q, k, v, scale=tower.scale(block))
            x = x + tower.project(block, y, x)
            inputs.append(x + tower.feed_forward(block, x))
        return torch.stack(inputs, dim=1)


def _keys(images: Tensor, positions: Positions) -> list[bytes]:
    """Return one key for each image: its pixels, size and how positions fit them."""
    start = f"{tuple(images.shape[1:])} {positions} ".encode()
    return [blake2b(start + image.numpy().tobytes(), digest_size=16).digest() for image in images]


def _missing(keys: list[bytes], known: dict[bytes, Tensor]) -> list[int]:
    first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in known}
    return sorted(first.values())
