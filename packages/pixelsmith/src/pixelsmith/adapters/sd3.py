# SPDX-License-Identifier: Apache-2.0
"""Stable Diffusion 3: a transformer over 16 channels with flow matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pixelsmith.adapters.base import (
    BOTH,
    POSITIVE,
    Condition,
    Extras,
    PatchCondition,
    Prompts,
    SolverDenoiser,
    sided,
)
from pixelsmith.adapters.schedulers import ClosedForm


class SD3Denoiser(SolverDenoiser):
    """Stable Diffusion 3; every patch has the positions of a whole image.

    Args:
        transformer: ``SD3Transformer2DModel``.
        solver: Closed form of the scheduler.
        condition: The prompt, or a function of a patch, pooled embedding included.
        extras: Guidance and further inputs.
        device: Device of the patches.
    """

    def __init__(
        self,
        transformer: Any,
        solver: ClosedForm,
        condition: Condition | PatchCondition,
        extras: Extras,
        *,
        device: torch.device | str,
    ) -> None:
        super().__init__(solver, device)
        self.transformer = transformer
        self.extras = extras
        self.prompts = Prompts(condition, self.device, transformer.dtype)

    def predict(self, x: Tensor, step: int, origins: Sequence[tuple[int, int]]) -> Tensor:
        """Return the guided velocity, ``(B, C, h, w)`` fp32.

        Raises:
            ValueError: If the prompt has no pooled side.
        """
        condition = self.prompts.of(origins)
        if condition.pooled is None:
            raise ValueError("SD3 needs the pooled side of a prompt; give Condition(pooled=...) as well")
        guided = self.extras.guidance.is_on(condition)
        seen = x.to(self.transformer.dtype)
        seen = torch.cat([seen, seen]) if guided else seen
        output: Tensor = self.transformer(
            hidden_states=seen,
            timestep=self.timestep(step).expand(len(seen)),
            encoder_hidden_states=sided(condition.negative_embeds if guided else None, condition.embeds),
            pooled_projections=sided(condition.negative_pooled if guided else None, condition.pooled),
            joint_attention_kwargs=self._attention(len(origins), guided, seen),
            return_dict=False,
        )[0].float()
        return self.extras.guidance.combine(*output.chunk(2)) if guided else output

    def _attention(self, count: int, guided: bool, like: Tensor) -> dict[str, Any] | None:
        given = dict(self.extras.attention_kwargs or {})
        images = self.extras.images(count, BOTH if guided else POSITIVE, like)
        if images:
            given["ip_adapter_image_embeds"] = images[0]
        return given or None
