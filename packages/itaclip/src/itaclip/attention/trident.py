# SPDX-License-Identifier: Apache-2.0
"""Trident: features of windows spliced to one map, gathered over the whole image by SAM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from itaclip.attention.proxy import ProxyAttention, regrid
from itaclip.attention.splice import GatheringStrategy
from itaclip.attention.towers import SamAttention, SamTower
from itaclip.encoder.driver import Encoder, LastInput


@dataclass(kw_only=True)
class TridentAttention(ProxyAttention, GatheringStrategy):
    """ProxyCLIP within windows, SAM over the image; strategy ``"trident"``.

    Args:
        beta: As for ProxyCLIP.
        gamma: As for ProxyCLIP.
        tower: As for ProxyCLIP.
        sam: SamModel of transformers: a hub id, folder, or the model itself.
        sam_beta: Factor on the mean cosine of SAM's attended values, below which two patches have nothing to
            do with each other.

    Source: Trident, arXiv 2411.09219: splice, then segment. Its last step, prompts to SAM's mask decoder from
        the segmentation, is left out.
    """

    has_towers: ClassVar[bool] = True

    tower: str | nn.Module = "vit_base_patch16_224.dino"
    sam: str | nn.Module = "facebook/sam-vit-base"
    sam_beta: float = 1.0
    _sam: SamTower | None = field(default=None, init=False, repr=False)

    def load(self) -> None:
        """Load both towers.

        Raises:
            ModelNotFoundError: If one is not there.
            ValueError: If one cannot be used.
        """
        super().load()
        if self._sam is None:
            self._sam = SamTower(self.sam)

    def bind(self, encoder: Encoder) -> None:
        """Move both towers to the device of the encoder."""
        super().bind(encoder)
        self._loaded_sam.to(encoder.device, encoder.tower.dtype)

    @property
    def _loaded_sam(self) -> SamTower:
        if self._sam is None:
            raise RuntimeError("SAM is not loaded: call bind first")
        return self._sam

    def window_maps(self, last: LastInput, encoder: Encoder) -> Tensor:
        """Return the attention branch of the last block on CLIP's own grid, ``(B, C, height, width)``."""
        branch, grid = self.branch(last, encoder)
        return regrid(branch, grid, last.grid).transpose(1, 2).unflatten(2, last.grid)

    def gather(self, spliced: Tensor, pixels: Tensor, encoder: Encoder) -> Tensor:
        """Gather the features of an image by SAM and project them into the space of the texts.

        Args:
            spliced: Attention branches of all windows in one map, ``(C, height, width)``.
            pixels: The image at its own size, ``(3, H, W)``, RGB in [0, 1].
            encoder: The image tower.

        Returns:
            ``(D, height, width)``, in patches of SAM, not normalised.
        """
        found = self._loaded_sam(pixels)
        weights = correlation(found, beta=self.sam_beta)  # (N, N)
        source = (spliced.shape[-2], spliced.shape[-1])
        tokens = regrid(spliced.flatten(1).T[None].float(), source, found.grid)
        gathered = (weights @ tokens[0]).to(spliced.dtype)
        return encoder.tower.to_text_space(gathered[None])[0].T.unflatten(1, found.grid)


def correlation(found: SamAttention, *, beta: float) -> Tensor:
    """Return how much each patch takes from every other, from the last layer of SAM's encoder.

    Its attention, averaged over the heads, of the pairs whose attended values have a cosine of at least
    ``beta`` times the mean; the rows add up to 1. A patch that nothing is left for keeps itself.

    Args:
        found: Attention and attended values.
        beta: Factor on the mean cosine.

    Returns:
        ``(N, N)``, fp32.

    Source: Trident, arXiv 2411.09219, takes both from there; how they are put together is ours.
    """
    unit = F.normalize(found.outputs, dim=-1)
    cosines = unit @ unit.T
    weights = found.weights.masked_fill(cosines < beta * cosines.mean(), 0)
    weights = weights + torch.diag((weights.sum(dim=-1) == 0).to(weights))
    return weights / weights.sum(dim=-1, keepdim=True)
