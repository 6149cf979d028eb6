# SPDX-License-Identifier: Apache-2.0
"""Drives the image tower of an untouched open_clip model, with another last block."""

from __future__ import annotations

from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import nn

from itaclip.encoder.driver import AttentionStrategy, BlockInput, Encoder, LastInput
from itaclip.encoder.native import NativeTower
from itaclip.encoder.timm_tower import TimmTower
from itaclip.encoder.tower import Tower
from itaclip.inputs import channel_stats

__all__ = ["AttentionStrategy", "BlockInput", "Encoder", "LastInput", "Tower", "build_encoder"]


def build_encoder(clip_model: nn.Module) -> Encoder:
    """Return the driver of an open_clip model's image tower.

    Args:
        clip_model: With an attribute ``visual``; neither it nor its weights are changed.

    Raises:
        NotImplementedError: If the tower is no vision transformer that can be taken apart.
    """
    visual = getattr(clip_model, "visual", None)
    if isinstance(visual, VisionTransformer):
        tower: Tower = NativeTower(visual)
    elif isinstance(visual, TimmModel):
        tower = TimmTower(visual)
    else:
        raise NotImplementedError(
            f"the image tower must be a vision transformer of open_clip or timm, got {type(visual).__name__}"
        )
    return Encoder(tower, *channel_stats(clip_model))
