# SPDX-License-Identifier: Apache-2.0
"""Diffusion transformers with text models as encoders: Sana, Lumina 2, Z-Image and Wan.

Texts are given as their pipelines give them, except that Sana gets no instruction before the prompt: it asks
the text model to embellish, which a feature does not want.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffeat.denoisers.adapter import Adapter
from diffeat.denoisers.dit import check_length, text_limit

_TRAIN_STEPS = 1000


def _encoded(pipeline: Any, prompts: Sequence[str], device: torch.device, **more: Any) -> tuple[Any, ...]:
    with torch.no_grad():
        return pipeline.encode_prompt(list(prompts), do_classifier_free_guidance=False, device=device, **more)


def _sana(
    pipeline: Any, prompts: Sequence[str], size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    if pipeline.transformer.config.guidance_embeds:
        raise NotImplementedError(
            "Sana-Sprint noises images on a schedule of its own; run its pipeline inside "
            "capture(pipeline, names) instead"
        )
    check_length(pipeline.tokenizer, prompts, text_limit(pipeline))
    embeds, mask, *_ = _encoded(pipeline, prompts, device)
    return {"encoder_hidden_states": embeds.to(device, dtype), "encoder_attention_mask": mask.to(device)}


def _lumina2(
    pipeline: Any, prompts: Sequence[str], size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    whole = [f"{pipeline.system_prompt} <Prompt Start> {prompt}" for prompt in prompts]
    check_length(pipeline.tokenizer, whole, text_limit(pipeline))
    embeds, mask, *_ = _encoded(pipeline, prompts, device)
    return {"encoder_hidden_states": embeds.to(device, dtype), "encoder_attention_mask": mask.to(device)}


def _z_image(
    pipeline: Any, prompts: Sequence[str], size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    check_length(pipeline.tokenizer, prompts, text_limit(pipeline))
    embeds, _ = _encoded(pipeline, prompts, device)
    return {"cap_feats": [each.to(device, dtype) for each in embeds]}


def _wan(
    pipeline: Any, prompts: Sequence[str], size: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    if getattr(pipeline, "transformer_2", None) is not None:
        raise NotImplementedError(
            "this pipeline has a denoiser for strong and one for weak noise; run it inside "
            "capture(pipeline.transformer_2, names) instead"
        )
    if pipeline.transformer.config.image_dim is not None:
        raise NotImplementedError(
            "this denoiser needs an image as its condition; run its pipeline inside capture(pipeline, names)"
        )
    check_length(pipeline.tokenizer, prompts, text_limit(pipeline))
    embeds, _ = _encoded(pipeline, prompts, device)
    return {"encoder_hidden_states": embeds.to(device, dtype)}


def _frames(_model: Any, noisy: Tensor, _clean: Tensor) -> list[Tensor]:
    """Lay latents out as one video of one frame for each image, ``(C, 1, h, w)``."""
    return list(noisy.unsqueeze(2).unbind(0))


def _reversed(_model: Any, timestep: float) -> float:
    """Time that runs from noise at 0 to the image at 1."""
    return 1 - timestep / _TRAIN_STEPS


SANA = Adapter(conditions=_sana, time=lambda model, timestep: timestep * model.config.timestep_scale)
LUMINA2 = Adapter(conditions=_lumina2, time=_reversed, sign=-1.0)
Z_IMAGE = Adapter(conditions=_z_image, stream="x", clock="t", pack=_frames, time=_reversed, patch=2)
WAN = Adapter(conditions=_wan)
