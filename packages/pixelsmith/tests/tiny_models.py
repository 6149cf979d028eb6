# SPDX-License-Identifier: Apache-2.0
"""Pipelines of diffusers with small random weights, built in place.

They have the classes and the wiring of the real models, and a few thousand weights.
"""

from __future__ import annotations

import json
import string
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch

__all__ = ["Family", "tiny_pipeline", "tiny_vae"]

Family = Literal["sd", "sdxl", "sd3", "flux"]
_LENGTH = 16  # tokens of a prompt


def tiny_pipeline(family: Family, *, seed: int = 0, second_width: int = 16) -> Any:
    """Return a text-to-image pipeline of random weights on the CPU in float32.

    Images are 64 pixels wide: 16 latents of 4 pixels.

    Args:
        family: Architecture of the pipeline.
        seed: Random seed of the weights; the global generator is left as it was.
        second_width: Width of the second CLIP of SDXL and SD3.
    """
    build = {
        "sd": _sd, "sdxl": lambda: _sdxl(second_width), "sd3": lambda: _sd3(second_width), "flux": _flux
    }[family]  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe = build()
    pipe.set_progress_bar_config(disable=True)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return pipe


def tiny_vae(latent_channels: int = 4, **settings: object) -> Any:
    """Return an autoencoder that shrinks images by 4.

    Args:
        latent_channels: Channels of the latents.
        settings: Further settings of ``AutoencoderKL``.
    """
    from diffusers import AutoencoderKL

    given: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 3,
        "up_block_types": ("UpDecoderBlock2D",) * 3,
        "block_out_channels": (8, 8, 16),
        "layers_per_block": 1,
        "latent_channels": latent_channels,
        "norm_num_groups": 4,
        "sample_size": 64,
        "scaling_factor": 0.5,
        "force_upcast": False,
        **settings,
    }
    return AutoencoderKL(**given)


def _tokenizer() -> Any:
    from transformers import CLIPTokenizer

    letters = string.digits + string.ascii_lowercase + string.punctuation
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = {token: number for number, token in enumerate(tokens)}
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n", "utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=_LENGTH)


def _text_settings() -> dict[str, Any]:
    count = 2 * len(string.digits + string.ascii_lowercase + string.punctuation) + 2
    return {
        "vocab_size": count,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": _LENGTH,
        "projection_dim": 16,
        "bos_token_id": count - 2,
        "eos_token_id": count - 1,
        "pad_token_id": count - 1,
    }


def _clip() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(CLIPTextConfig(**_text_settings()))


def _projecting_clip(width: int = 16) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    return CLIPTextModelWithProjection(CLIPTextConfig(**{**_text_settings(), "hidden_size": width}))


def _t5(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    count = _text_settings()["vocab_size"]
    return T5EncoderModel(
        T5Config(vocab_size=count, d_model=width, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )


def _ddim() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


def _unet(**settings: object) -> Any:
    from diffusers import UNet2DConditionModel

    given: dict[str, Any] = {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "cross_attention_dim": 16,
        "norm_num_groups": 4,
        **settings,
    }
    return UNet2DConditionModel(**given)


def _sd() -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=_clip(),
        tokenizer=_tokenizer(),
        unet=_unet(),
        scheduler=_ddim(),
        safety_checker=None,  # pyright: ignore[reportArgumentType]  # optional, against its annotation
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )


def _sdxl(second_width: int) -> Any:
    from diffusers import StableDiffusionXLPipeline

    unet = _unet(
        cross_attention_dim=16 + second_width,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8,
        use_linear_projection=True,
    )
    return StableDiffusionXLPipeline(
        vae=tiny_vae(),
        text_encoder=_clip(),
        text_encoder_2=_projecting_clip(second_width),
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(),
        unet=unet,
        scheduler=_ddim(),
        add_watermarker=False,
    )


def _sd3(second_width: int) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=16 + second_width,
        caption_projection_dim=32,
        pooled_projection_dim=32,
        pos_embed_max_size=24,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny_vae(16, shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=_projecting_clip(),
        tokenizer=_tokenizer(),
        text_encoder_2=_projecting_clip(second_width),
        tokenizer_2=_tokenizer(),
        text_encoder_3=_t5(16 + second_width),
        tokenizer_3=_tokenizer(),
    )


def _flux() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 6, 6),
        guidance_embeds=True,
    )
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=tiny_vae(16, shift_factor=0.11, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=_clip(),
        tokenizer=_tokenizer(),
        text_encoder_2=_t5(16),
        tokenizer_2=_tokenizer(),
        transformer=transformer,
    )
    pipe.default_sample_size = 16
    return pipe
