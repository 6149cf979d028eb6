# SPDX-License-Identifier: Apache-2.0
"""Stable Diffusion XL: a U-Net with a pooled prompt embedding and size and crop conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pixelsmith.adapters.base import Condition, Extras, PatchCondition, sided
from pixelsmith.adapters.conditioning import Placement
from pixelsmith.adapters.schedulers import ClosedForm
from pixelsmith.adapters.unet import Controls, UNetDenoiser


class SDXLDenoiser(UNetDenoiser):
    """Stable Diffusion XL.

    Args:
        unet: ``UNet2DConditionModel``.
        solver: Closed form of the scheduler.
        condition: The prompt, or a function of a patch, pooled embedding included.
        extras: Guidance and further inputs.
        controls: ControlNets.
        placement: Size and crop conditioning of the patches.
        device: Device of the patches.
    """

    def __init__(
        self,
        unet: Any,
        solver: ClosedForm,
        condition: Condition | PatchCondition,
        extras: Extras,
        *,
        placement: Placement,
        controls: Controls | None = None,
        device: torch.device | str,
    ) -> None:
        super().__init__(unet, solver, condition, extras, controls=controls, device=device)
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
