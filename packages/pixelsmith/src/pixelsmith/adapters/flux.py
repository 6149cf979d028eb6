# SPDX-License-Identifier: Apache-2.0
"""FLUX: a transformer over latents packed two by two, with the guidance scale as an input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pixelsmith.adapters.base import NEGATIVE, POSITIVE, Condition, NetworkDenoiser
from pixelsmith.adapters.control import Control, LatentControls
from pixelsmith.config import Positions


class FluxDenoiser(NetworkDenoiser[LatentControls]):
    """FLUX, over ``FluxTransformer2DModel``; a negative prompt switches true classifier-free guidance on.

    Args:
        parts: Network, solver, condition and extras.
        guidance_embed: Guidance scale that models distilled from guidance take; others ignore it.
        positions: Numbering of the tokens: ``"patch"``, from 0 in every patch, or ``"canvas"``, by their
            place, far beyond the positions that the model was trained with.
        options: ControlNets and device.
    """

    def __init__(
        self, *parts: Any, guidance_embed: float = 3.5, positions: Positions = "patch", **options: Any
    ) -> None:
        super().__init__(*parts, **options)
        self.guidance_embed = guidance_embed
        self.positions = positions

    def predict(self, x: Tensor, step: int, origins: Sequence[tuple[int, int]]) -> Tensor:
        """Return the velocity, ``(B, C, h, w)`` fp32.

        Raises:
            ValueError: If a side of the patches is odd, or the prompt has no pooled side.
        """
        if self.positions == "canvas":
            # the model takes one list of positions for a whole batch
            each = [self._predict(x[i : i + 1], step, [place], place) for i, place in enumerate(origins)]
            return torch.cat(each)
        return self._predict(x, step, origins, (0, 0))

    def _predict(
        self, x: Tensor, step: int, origins: Sequence[tuple[int, int]], first: tuple[int, int]
    ) -> Tensor:
        condition = self.prompts.of(origins)
        blocks = self._blocks(x, step, origins, first, condition)
        positive = self._run(x, step, first, (condition.embeds, condition.pooled), POSITIVE, blocks)
        if not self.extras.guidance.is_on(condition) or condition.negative_embeds is None:
            return positive
        prompt = (condition.negative_embeds, condition.negative_pooled)
        return self.extras.guidance.combine(self._run(x, step, first, prompt, NEGATIVE, blocks), positive)

    def _inputs(self, x: Tensor, step: int, first: tuple[int, int], embeds: Tensor) -> dict[str, Any]:
        """Return the inputs that the transformer and a ControlNet have in common."""
        B, _, height, width = x.shape
        dtype = self.network.dtype
        return {
            "hidden_states": pack(x).to(dtype),
            "timestep": self.timestep(step).expand(B).to(dtype) / 1000,
            "txt_ids": torch.zeros(embeds.shape[1], 3, device=self.device, dtype=dtype),
            "img_ids": position_ids(height // 2, width // 2, first).to(self.device, dtype),
            "return_dict": False,
        }

    def _guidance(self, network: Any, count: int) -> Tensor | None:
        if not network.config.guidance_embeds:
            return None
        return torch.full((count,), self.guidance_embed, device=self.device, dtype=torch.float32)

    def _blocks(
        self,
        x: Tensor,
        step: int,
        origins: Sequence[tuple[int, int]],
        first: tuple[int, int],
        condition: Condition,
    ) -> dict[str, Any]:
        """Return the features that the ControlNets add to the blocks, by the prompt, as in diffusers."""
        if self.controls is None:
            return {}
        given = self._inputs(x, step, first, condition.embeds)

        def call(control: Control, latents: Tensor) -> Sequence[Sequence[Tensor] | None]:
            mode = control.mode
            return control.model(
                **given,
                controlnet_cond=pack(latents.to(x)).to(given["hidden_states"]),
                controlnet_mode=None if mode is None else torch.full((len(x), 1), mode, device=self.device),
                conditioning_scale=control.scale,
                encoder_hidden_states=condition.embeds,
                pooled_projections=condition.pooled,
                guidance=self._guidance(control.model, len(x)),
            )

        found = self.controls.features(step, self.num_steps, origins, (x.shape[-2], x.shape[-1]), call)
        if not found:
            return {}
        return {"controlnet_block_samples": found[0], "controlnet_single_block_samples": found[1]}

    def _run(
        self,
        x: Tensor,
        step: int,
        first: tuple[int, int],
        prompt: tuple[Tensor, Tensor | None],
        side: slice,
        blocks: Mapping[str, Any],
    ) -> Tensor:
        embeds, pooled = prompt
        if pooled is None:
            raise ValueError("FLUX needs the pooled side of a prompt; give Condition(pooled=...) as well")
        given = self._inputs(x, step, first, embeds)
        attention = dict(self.extras.attention_kwargs or {})
        images = self.extras.images(len(x), side, given["hidden_states"])
        if images:
            attention["ip_adapter_image_embeds"] = images
        packed: Tensor = self.network(
            **given,
            **blocks,
            guidance=self._guidance(self.network, len(x)),
            pooled_projections=pooled,
            encoder_hidden_states=embeds,
            joint_attention_kwargs=attention,
        )[0]
        return unpack(packed.float(), x.shape[-2], x.shape[-1])


def pack(x: Tensor) -> Tensor:
    """Pack latents into tokens of two by two, ``(B, C, h, w)`` to ``(B, h * w / 4, 4 * C)``.

    Raises:
        ValueError: If a side is odd.
    """
    B, C, height, width = x.shape
    if height % 2 or width % 2:
        raise ValueError(f"patches must have even sides, got {height} x {width}")
    x = x.reshape(B, C, height // 2, 2, width // 2, 2)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(B, height * width // 4, 4 * C)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Undo :func:`pack`."""
    B, _, C = tokens.shape
    x = tokens.reshape(B, height // 2, width // 2, C // 4, 2, 2)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(B, C // 4, height, width)


def position_ids(height: int, width: int, first: tuple[int, int] = (0, 0)) -> Tensor:
    """Return (0, row, column) of every token, ``(height * width, 3)``.

    Args:
        height: Number of rows of tokens.
        width: Number of columns of tokens.
        first: Row and column of the first latent; a token is two latents wide.
    """
    rows, columns = torch.meshgrid(
        torch.arange(height) + first[0] / 2, torch.arange(width) + first[1] / 2, indexing="ij"
    )
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)
