# SPDX-License-Identifier: Apache-2.0
"""Diffusion transformers: PixArt, HunyuanDiT, Stable Diffusion 3 and Flux.

Their text encoders read a fixed number of tokens, so prompts are not split into chunks as for CLIP: one that
does not fit is refused instead of truncated.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffeat.denoisers.adapter import Adapter

_CLIP_LENGTH = 77
# HunyuanDiT's rotary positions are those of a 512-pixel image at any size
_HUNYUAN_BASE = 64


def check_length(tokenizer: Any, prompts: Sequence[str], limit: int) -> None:
    """Refuse prompts that the text encoder would truncate.

    Raises:
        ValueError: If a prompt has more than ``limit`` tokens.
    """
    for prompt in prompts:
        length = len(tokenizer(prompt, verbose=False).input_ids)
        if length > limit:
            raise ValueError(
                f"prompt must have at most {limit} tokens for this model, got {length}: {prompt[:40]!r}..."
            )


def text_limit(pipeline: Any) -> int:
    """Text tokens that a pipeline takes by default."""
    default = inspect.signature(pipeline.encode_prompt).parameters["max_sequence_length"].default
    return int(default)


def _pixart(
    pipeline: Any, prompts: Sequence[str], size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    check_length(pipeline.tokenizer, prompts, text_limit(pipeline))
    with torch.no_grad():
        embeds, mask, *_ = pipeline.encode_prompt(
            list(prompts), do_classifier_free_guidance=False, device=device, clean_caption=False
        )
    height, width = size
    added: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
    if pipeline.transformer.config.sample_size == 128:
        sides = torch.tensor([[height, width]], device=device, dtype=dtype)
        ratio = torch.tensor([[height / width]], device=device, dtype=dtype)
        added = {
            "resolution": sides.expand(len(prompts), -1),
            "aspect_ratio": ratio.expand(len(prompts), -1),
        }
    return {
        "encoder_hidden_states": embeds.to(device, dtype),
        "encoder_attention_mask": mask.to(device),
        "added_cond_kwargs": added,
    }


def _hunyuan(
    pipeline: Any, prompts: Sequence[str], size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    config = pipeline.transformer.config
    check_length(pipeline.tokenizer_2, prompts, int(config.text_len_t5))
    encoded: list[Tensor] = []
    for index, length in enumerate((int(config.text_len), int(config.text_len_t5))):
        with torch.no_grad():
            embeds, _, mask, _ = pipeline.encode_prompt(
                list(prompts),
                device=device,
                do_classifier_free_guidance=False,
                max_sequence_length=length,
                text_encoder_index=index,
            )
        encoded += [embeds.to(device, dtype), mask.to(device)]
    height, width = size
    meta = torch.tensor([[height, width, height, width, 0, 0]], device=device, dtype=dtype)
    return {
        "encoder_hidden_states": encoded[0],
        "text_embedding_mask": encoded[1],
        "encoder_hidden_states_t5": encoded[2],
        "text_embedding_mask_t5": encoded[3],
        "image_meta_size": meta.repeat(len(prompts), 1),
        "style": torch.zeros(len(prompts), dtype=torch.long, device=device),
        "image_rotary_emb": _rotary(pipeline, size, device),
    }


def _rotary(pipeline: Any, size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return HunyuanDiT's rotary positions: the grid is centred over its native square.

    Source: diffusers, ``HunyuanDiTPipeline``.
    """
    from diffusers.models.embeddings import get_2d_rotary_pos_embed

    config = pipeline.transformer.config
    cell = int(pipeline.vae_scale_factor) * int(config.patch_size)
    grid = size[0] // cell, size[1] // cell
    base = _HUNYUAN_BASE // int(config.patch_size)
    scale = base / max(grid)
    inner = round(scale * grid[0]), round(scale * grid[1])
    top, left = (round((base - side) / 2) for side in inner)
    cos, sin = get_2d_rotary_pos_embed(
        int(config.attention_head_dim),
        ((top, left), (top + inner[0], left + inner[1])),
        grid,
        device=device,
        output_type="pt",
    )
    return cos, sin


def _sd3(
    pipeline: Any, prompts: Sequence[str], size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    has_t5 = getattr(pipeline, "text_encoder_3", None) is not None
    if has_t5:
        check_length(pipeline.tokenizer_3, prompts, text_limit(pipeline))
    else:
        check_length(pipeline.tokenizer, prompts, _CLIP_LENGTH)
    with torch.no_grad():
        embeds, _, pooled, _ = pipeline.encode_prompt(
            list(prompts), None, None, device=device, do_classifier_free_guidance=False
        )
    return {
        "encoder_hidden_states": embeds.to(device, dtype),
        "pooled_projections": pooled.to(device, dtype),
    }


def _flux(
    pipeline: Any, prompts: Sequence[str], size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    check_length(pipeline.tokenizer_2, prompts, text_limit(pipeline))
    with torch.no_grad():
        embeds, pooled, text_ids = pipeline.encode_prompt(list(prompts), device=device)
    cell = 2 * int(pipeline.vae_scale_factor)
    h, w = size[0] // cell, size[1] // cell
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    image_ids = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1)  # (h * w, 3)
    found = {
        "encoder_hidden_states": embeds.to(device, dtype),
        "pooled_projections": pooled.to(device, dtype),
        "img_ids": image_ids.to(device, dtype),
        "txt_ids": text_ids.to(device, dtype),
    }
    if pipeline.transformer.config.guidance_embeds:
        found["guidance"] = torch.ones(len(prompts), device=device, dtype=torch.float32)
    return found


def _fold(model: Any, noisy: Tensor, _clean: Tensor) -> Tensor:
    """Fold 2x2 latent cells into a token, ``(B, C, h, w)`` to ``(B, h/2 * w/2, 4 * C)``."""
    cells = noisy.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, C, h/2, 2, w/2, 2)
    tokens = cells.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, N, 4 * C)
    if tokens.shape[2] == model.config.in_channels:
        return tokens
    raise ValueError(
        f"a token of the transformer takes {model.config.in_channels} channels, which {tokens.shape[2]} of a "
        "latent cannot fill; run its own pipeline inside capture(pipeline, names) instead"
    )


PIXART = Adapter(conditions=_pixart)
HUNYUAN = Adapter(conditions=_hunyuan, is_time_cast=True)
SD3 = Adapter(conditions=_sd3)
FLUX = Adapter(conditions=_flux, pack=_fold, time=lambda _, timestep: timestep * 1e-3, patch=2)
