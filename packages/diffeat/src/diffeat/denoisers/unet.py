# SPDX-License-Identifier: Apache-2.0
"""U-Nets: text of any length, pooled vectors, size conditions and extra input channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from diffeat.denoisers.adapter import Adapter
from diffeat.denoisers.clip import encode_clip, num_chunks


def _common(
    pipeline: Any, prompts: Sequence[str], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Return text conditions of a U-Net without a CLIP tokenizer, from the pipeline itself."""
    embeds = pipeline.encode_prompt(
        list(prompts), device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )[0]
    return {"encoder_hidden_states": embeds.to(device, dtype)}


def _unet_conditions(
    pipeline: Any, prompts: Sequence[str], size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    unet = pipeline.unet
    if getattr(unet.config, "cross_attention_dim", None) is None or not hasattr(pipeline, "tokenizer"):
        return {}
    kwargs: dict[str, Any]
    if getattr(pipeline, "text_encoder_2", None) is not None:
        kwargs = _sdxl_text(pipeline, prompts, size, device, dtype)
    elif "CLIP" in type(pipeline.text_encoder).__name__:
        tokenizer, encoder = pipeline.tokenizer, pipeline.text_encoder
        embeds, _ = encode_clip(
            tokenizer, encoder, prompts, chunks=num_chunks(tokenizer, prompts), hidden=None
        )
        kwargs = {"encoder_hidden_states": embeds.to(device, dtype)}
    else:
        kwargs = _common(pipeline, prompts, device, dtype)
    if unet.config.time_cond_proj_dim is not None:
        scale = torch.zeros(len(prompts))
        embedding = pipeline.get_guidance_scale_embedding(scale, unet.config.time_cond_proj_dim)
        kwargs["timestep_cond"] = embedding.to(device, dtype)
    return kwargs


def _sdxl_text(
    pipeline: Any, prompts: Sequence[str], size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Text encoders, pooled vector and size conditions of SDXL; refiners have the second encoder only."""
    pairs = [
        (tokenizer, encoder)
        for tokenizer, encoder in (
            (pipeline.tokenizer, pipeline.text_encoder),
            (pipeline.tokenizer_2, pipeline.text_encoder_2),
        )
        if encoder is not None
    ]
    chunks = max(num_chunks(tokenizer, prompts) for tokenizer, _ in pairs)
    encoded = [encode_clip(t, e, prompts, chunks=chunks, hidden=-2) for t, e in pairs]
    pooled = cast("Tensor", encoded[-1][1])
    height, width = size
    last = [6.0] if getattr(pipeline.config, "requires_aesthetics_score", False) else [height, width]
    time_ids = torch.tensor([[height, width, 0, 0, *last]], device=device, dtype=dtype)
    return {
        "encoder_hidden_states": torch.cat([embeds for embeds, _ in encoded], dim=-1).to(device, dtype),
        "added_cond_kwargs": {
            "text_embeds": pooled.to(device, dtype),
            "time_ids": time_ids.expand(len(prompts), -1),
        },
    }


def _unet_pack(model: Any, noisy: Tensor, clean: Tensor) -> Tensor:
    """Fill the extra inputs of inpainting and editing U-Nets: nothing masked, the image itself as hint."""
    channels = clean.shape[1]
    extra = int(model.config.in_channels) - channels
    if extra == 0:
        return noisy
    if extra == channels:
        return torch.cat([noisy, clean], dim=1)
    if extra == channels + 1:
        return torch.cat([noisy, torch.zeros_like(clean[:, :1]), clean], dim=1)
    raise ValueError(
        f"the U-Net takes {model.config.in_channels} channels, which {channels} latent channels cannot fill; "
        "run its own pipeline inside capture(pipeline, names) instead"
    )


UNET = Adapter(conditions=_unet_conditions, stream="sample", pack=_unet_pack)
