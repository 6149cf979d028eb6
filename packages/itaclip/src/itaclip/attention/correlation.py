# SPDX-License-Identifier: Apache-2.0
"""CorrCLIP: patches take from those of their region, as much as another tower finds them alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from itaclip.attention.proxy import ProxyAttention, regrid
from itaclip.attention.regions import RegionModel
from itaclip.encoder.driver import Encoder, LastInput
from itaclip.encoder.native import NativeTower
from itaclip.encoder.tower import Grid, join_heads, split_heads

# blocks whose mean output is the spatial branch, by the depth of the tower
_SPATIAL = {12: 5, 24: 12, 32: 28}


@dataclass(kw_only=True)
class CorrelationAttention(ProxyAttention):
    """Attention within regions of the image; strategy ``"corrclip"``.

    Three branches are added in the space of the texts: the values of the last block, those of the mean of
    earlier blocks, and a class token for each region, which sees that region alone in every block.

    Args:
        tower: As for ProxyCLIP; its queries and keys of the last block are compared.
        regions: Model of transformers for panoptic segmentation (Mask2Former, EoMT): a hub id, folder, or a
            function from RGB images ``(3, H, W)`` in [0, 1] to numbers of regions ``(H, W)``, 0 for none.
        temperature: Factor on the similarities before the softmax.
        merged: Distance in similarity from the most alike two regions up to which regions are one.
        spatial_weight: Weight of the second branch.
        semantic_weight: Weight of the third branch.

    Source: CorrCLIP, arXiv 2411.10086, and its published code, which runs on MetaCLIP.
    """

    needs_regions: ClassVar[bool] = True

    regions: Any = "tue-mps/coco_panoptic_eomt_large_640"
    temperature: float = 4.0
    merged: float = 0.2
    spatial_weight: float = 1.0
    semantic_weight: float = 0.5
    _regions: Any = field(default=None, init=False, repr=False)

    def layers(self, num_blocks: int) -> tuple[int, ...]:
        """Return all blocks but the last: tokens of regions go through each of them."""
        return tuple(range(1, num_blocks))

    def load(self) -> None:
        """Load the other tower and the model of the regions.

        Raises:
            ModelNotFoundError: If one is not there.
            ValueError: If one cannot be used.
        """
        super().load()
        if self._regions is None:
            self._regions = self.regions if callable(self.regions) else RegionModel(str(self.regions))

    def bind(self, encoder: Encoder) -> None:
        """Move both models to the device of the encoder.

        Raises:
            ValueError: If the image tower is none of open_clip's own.
        """
        if not isinstance(encoder.tower, NativeTower):
            raise ValueError("attention corrclip needs open_clip's own vision transformer")
        super().bind(encoder)
        if isinstance(self._regions, (RegionModel, nn.Module)):
            self._regions.to(encoder.device)

    def find_regions(self, pixels: Tensor) -> Tensor:
        """Return the number of the region of every pixel of an image, 0 for none, ``(H, W)``."""
        if self._regions is None:
            raise RuntimeError("the model of the regions is not loaded: call bind first")
        return self._regions(pixels)

    def features(self, last: LastInput, encoder: Encoder) -> Tensor:
        """Return features on the grid of the other tower, ``(B, D, height, width)``."""
        if last.regions is None:
            raise ValueError("attention corrclip needs the regions of its images")
        maps = self._loaded.query_keys(encoder.to_pixels(last.images)).float()
        grid = (maps.shape[-2], maps.shape[-1])
        unit = F.normalize(maps.flatten(2).mT, dim=-1)  # (B, N, C)
        regions = F.interpolate(last.regions[:, None].float(), size=grid, mode="nearest")[:, 0].long()
        found = [
            self._image(last, encoder, number, each, merge(area, each, self.merged), grid)
            for number, (each, area) in enumerate(zip(unit, regions.flatten(1), strict=True))
        ]
        return torch.stack(found).mT.unflatten(2, grid)

    def _image(
        self, last: LastInput, encoder: Encoder, number: int, unit: Tensor, regions: Tensor, grid: Grid
    ) -> Tensor:
        """Return the features of one image, ``(N, D)``, on the grid of the other tower."""
        tower = encoder.tower
        weights = correlations(unit, regions, self.temperature).to(last.x.dtype)
        depth = _SPATIAL.get(tower.num_blocks, max(1, tower.num_blocks - 4))
        levels = torch.stack([block.x[number] for block in last.earlier[-depth:]]).mean(dim=0)
        streams = torch.stack([last.x[number], levels])
        values = tower.qkv(tower.num_blocks - 1, streams, last.grid)[2]
        moved = regrid(join_heads(values)[:, 1:], last.grid, grid)
        y = weights @ split_heads(moved, values.shape[1])  # (2, heads, N, head_dim)
        main, spatial = tower.to_text_space(tower.project(tower.num_blocks - 1, y, streams))
        tokens, owner = self._region_tokens(last, encoder, number, regions.view(grid))
        semantic = tower.to_text_space(tokens[None])[0][owner]
        return main + self.spatial_weight * spatial + self.semantic_weight * semantic

    def _region_tokens(
        self, last: LastInput, encoder: Encoder, number: int, regions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return a token for each region ``(R, C)``, and the token of every patch of ``regions``."""
        tower = encoder.tower
        present, owner = regions.flatten().unique(return_inverse=True)
        coarse = F.interpolate(regions[None, None].float(), size=last.grid, mode="nearest").flatten()
        # the class token of the image, and the patches of the region
        seen = F.pad(coarse[None] == present[:, None], (1, 0), value=True)
        tokens = last.earlier[0].x[number, :1].expand(len(present), -1)
        for block, source in enumerate((*last.earlier, last)):
            query = tower.qkv(block, tokens[None], last.grid)[0]  # (1, heads, R, head_dim)
            _, key, value = (each[number : number + 1] for each in source.qkv)
            y = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=source.scale)
            tokens = tokens + tower.project(block, y, tokens[None])[0]
            tokens = tokens + tower.feed_forward(block, tokens)
        return tokens, owner


def merge(regions: Tensor, unit: Tensor, distance: float) -> Tensor:
    """Give regions that are alike one number.

    Two regions are one if the cosine of their mean features is at most ``distance`` below the largest of all,
    or if a chain of such regions joins them: density clustering whose every point is a core.

    Args:
        regions: Number of the region of each patch, ``(N,)``, 0 for none.
        unit: Normalised features, ``(N, C)``.
        distance: Largest difference.

    Returns:
        ``(N,)``; 0 stays 0.
    """
    present = regions.unique()
    present = present[present > 0]
    if len(present) < 2:
        return regions
    means = F.normalize(torch.stack([unit[regions == each].mean(dim=0) for each in present]), dim=-1)
    cosines = means @ means.T
    joined = (cosines >= cosines.max() - distance).float()
    for _ in range(len(present).bit_length()):  # twice as long chains each time
        joined = ((joined @ joined) > 0).float()
    first = joined.argmax(dim=1)
    found = regions.clone()
    for number, each in enumerate(present):
        found[regions == each] = first[number] + 1
    return found


def correlations(unit: Tensor, regions: Tensor, temperature: float) -> Tensor:
    """Return how much each patch takes from every other, ``(N, N)``, rows adding up to 1.

    Patches take from those of their own region; a patch of none takes from, and gives to, all that are more
    alike to it than the mean. A patch that nothing is left for keeps itself.

    Args:
        unit: Normalised features, ``(N, C)``.
        regions: Number of the region of each patch, 0 for none.
        temperature: Factor on the cosines before the softmax.
    """
    cosines = unit @ unit.T
    loose = (regions == 0)[:, None] | (regions == 0)[None]
    open_to = torch.where(loose, cosines > cosines.mean(), regions[:, None] == regions[None])
    own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    open_to = open_to | (own & ~open_to.any(dim=1, keepdim=True))
    return (cosines * temperature).masked_fill(~open_to, -torch.inf).softmax(dim=-1)
