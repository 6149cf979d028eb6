# SPDX-License-Identifier: Apache-2.0
"""Stable Diffusion XL: a U-Net with a pooled prompt embedding and size and crop conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pixelsmith.adapters.base import Condition, sided
from pixelsmith.adapters.conditioning import Placement
from pixelsmith.adapters.unet import UNetDenoiser


class SDXLDenoiser(UNetDenoiser):
    """Stable Diffusion XL.

    Args:
        parts: Network, solver, condition and extras.
        placement: Size and crop conditioning of the patches.
        options: ControlNets and device.
    """

    def __init__(self, *parts: Any, placement: Placement, **options: Any) -> None:
        super().__init__(*parts, **options)
        self.placement = placement

    def added(self, condition: Condition, origins: Sequence[tuple[int, int]], guided: bool) -> dict[str, Any]:
        """Return pooled prompts and time ids, both sides if guided.

        Raises:
            ValueError: If the prompt has no pooled side.
        """
        if condition.pooled is None:
            raise ValueError("SDXL needs the pooled side of a prompt; give Condition(pooled=...) as well")
        ids = self.placement.time_ids(origins, self.device)
        if not guided:
            return {"text_embeds": condition.pooled, "time_ids": ids}
        pooled = sided(condition.negative_pooled, condition.pooled)
        return {"text_embeds": pooled, "time_ids": torch.cat([ids, ids])}
