# SPDX-License-Identifier: Apache-2.0
"""Denoisers over a U-Net of diffusers, common to SD and SDXL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pixelsmith.adapters.base import BOTH, POSITIVE, Condition, NetworkDenoiser, sided
from pixelsmith.adapters.control import Control


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """ControlNets of a stage.

    Attributes:
        each: ControlNets, whose features are added.
        size: Height and width of the whole canvas in pixels.
        vae_scale_factor: Pixels per latent and side.
    """

    each: Sequence[Control] = ()
    size: tuple[int, int] = (0, 0)
    vae_scale_factor: int = 8


class UNetDenoiser(NetworkDenoiser[Controls]):
    """Stable Diffusion 1 and 2, and the base of SDXL, over ``UNet2DConditionModel``."""

    def predict(self, x: Tensor, step: int, origins: Sequence[tuple[int, int]]) -> Tensor:
        """Return the guided output of the U-Net, ``(B, C, h, w)`` fp32."""
        condition = self.prompts.of(origins)
        # a network that was distilled from guidance takes its scale as an input instead
        is_distilled = self.network.config.time_cond_proj_dim is not None
        guided = self.extras.guidance.is_on(condition) and not is_distilled
        embeds = sided(condition.negative_embeds if guided else None, condition.embeds)
        seen = self.solver.scale_input(x, step).to(self.network.dtype)
        seen = torch.cat([seen, seen]) if guided else seen
        added = self.added(condition, origins, guided)
        features = self._features(seen, step, origins, embeds, added)
        images = self.extras.images(len(origins), BOTH if guided else POSITIVE, seen)
        if images:
            added = {**added, "image_embeds": images}
        output: Tensor = self.network(
            seen,
            self.timestep(step),
            encoder_hidden_states=embeds,
            timestep_cond=self._embed_scale(len(seen)) if is_distilled else None,
            cross_attention_kwargs=self.extras.attention_kwargs,
            added_cond_kwargs=added or None,
            return_dict=False,
            **features,
        )[0].float()
        return self.extras.guidance.combine(*output.chunk(2)) if guided else output

    def added(self, condition: Condition, origins: Sequence[tuple[int, int]], guided: bool) -> dict[str, Any]:
        """Return further conditions, both sides if guided; none here."""
        return {}

    def _embed_scale(self, count: int) -> Tensor:
        """Return the guidance scale as an embedding, ``(count, D)``."""
        from diffusers.models.embeddings import get_timestep_embedding  # slow to import, and rarely needed

        scale = torch.tensor([(self.extras.guidance.scale - 1) * 1000])
        embedding = get_timestep_embedding(scale, self.network.config.time_cond_proj_dim)
        return embedding.expand(count, -1).to(self.device, self.network.dtype)

    def _features(
        self,
        seen: Tensor,
        step: int,
        origins: Sequence[tuple[int, int]],
        embeds: Tensor,
        added: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return the residuals that the ControlNets add inside the U-Net."""
        if self.controls is None:
            return {}
        down: list[Tensor] = []
        middle: Tensor | None = None
        patch = (seen.shape[-2], seen.shape[-1])
        for control in self.controls.each:
            if not control.is_on(step, self.num_steps):
                continue
            image = control.crop(origins, patch, self.controls.size, self.controls.vae_scale_factor)
            features, deepest = control.model(
                seen,
                self.timestep(step),
                encoder_hidden_states=embeds,
                **_shown(control, image.to(seen).repeat(len(seen) // len(origins), 1, 1, 1)),
                conditioning_scale=control.scale,
                added_cond_kwargs=dict(added) or None,
                return_dict=False,
            )
            down = [a + b for a, b in zip(down, features, strict=True)] if down else list(features)
            middle = deepest if middle is None else middle + deepest
        if middle is None:
            return {}
        return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


def _shown(control: Control, image: Tensor) -> dict[str, Any]:
    """Return the images of a ControlNet, ``(B, 3, h, w)``, as its call takes them."""
    if control.mode is None or not control.num_kinds:
        return {"controlnet_cond": image}
    kinds = image.new_zeros(len(image), control.num_kinds)
    kinds[:, control.mode] = 1
    return {"controlnet_cond": [image], "control_type": kinds, "control_type_idx": [control.mode]}
