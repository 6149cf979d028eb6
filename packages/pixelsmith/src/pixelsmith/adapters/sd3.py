# SPDX-License-Identifier: Apache-2.0
"""Stable Diffusion 3: a transformer over 16 channels with flow matching."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pixelsmith.adapters.base import BOTH, POSITIVE, NetworkDenoiser, sided
from pixelsmith.adapters.control import Control, LatentControls


class SD3Denoiser(NetworkDenoiser[LatentControls]):
    """Stable Diffusion 3, over ``SD3Transformer2DModel``; every patch has the positions of a whole image."""

    def predict(self, x: Tensor, step: int, origins: Sequence[tuple[int, int]]) -> Tensor:
        """Return the guided velocity, ``(B, C, h, w)`` fp32.

        Raises:
            ValueError: If the prompt has no pooled side.
        """
        condition = self.prompts.of(origins)
        if condition.pooled is None:
            raise ValueError("SD3 needs the pooled side of a prompt; give Condition(pooled=...) as well")
        guided = self.extras.guidance.is_on(condition)
        seen = x.to(self.network.dtype)
        seen = torch.cat([seen, seen]) if guided else seen
        prompt = sided(condition.negative_embeds if guided else None, condition.embeds)
        pooled = sided(condition.negative_pooled if guided else None, condition.pooled)
        output: Tensor = self.network(
            hidden_states=seen,
            timestep=self.timestep(step).expand(len(seen)),
            encoder_hidden_states=prompt,
            pooled_projections=pooled,
            block_controlnet_hidden_states=self._blocks(seen, step, origins, prompt, pooled),
            joint_attention_kwargs=self._attention(len(origins), guided, seen),
            return_dict=False,
        )[0].float()
        return self.extras.guidance.combine(*output.chunk(2)) if guided else output

    def _blocks(
        self, seen: Tensor, step: int, origins: Sequence[tuple[int, int]], prompt: Tensor, pooled: Tensor
    ) -> list[Tensor] | None:
        """Return the features that the ControlNets add to the blocks."""
        if self.controls is None:
            return None

        def call(control: Control, latents: Tensor) -> Sequence[Sequence[Tensor]]:
            config = control.model.config
            image = latents.to(seen).repeat(len(seen) // len(origins), 1, 1, 1)
            # as in the pipeline of diffusers: some were trained without pooled prompt, some without prompt
            return control.model(
                hidden_states=seen,
                timestep=self.timestep(step).expand(len(seen)),
                encoder_hidden_states=None if config.joint_attention_dim is None else prompt,
                pooled_projections=(
                    torch.zeros_like(pooled) if config.force_zeros_for_pooled_projection else pooled
                ),
                controlnet_cond=image,
                conditioning_scale=control.scale,
                return_dict=False,
            )

        found = self.controls.features(step, self.num_steps, origins, (seen.shape[-2], seen.shape[-1]), call)
        return found[0] if found else None

    def _attention(self, count: int, guided: bool, like: Tensor) -> dict[str, Any] | None:
        given = dict(self.extras.attention_kwargs or {})
        images = self.extras.images(count, BOTH if guided else POSITIVE, like)
        if images:
            given["ip_adapter_image_embeds"] = images[0]
        return given or None
