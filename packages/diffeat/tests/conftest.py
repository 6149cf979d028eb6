# SPDX-License-Identifier: Apache-2.0
"""Tiny random pipelines in the real file formats, built once per run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

WINDOW = 16  # tokens of the text encoders, start and end included
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(autouse=True)
def _no_gradients_left() -> Iterator[None]:
    is_on = torch.is_grad_enabled()
    yield
    assert torch.is_grad_enabled() == is_on


def clip_tokenizer() -> CLIPTokenizer:
    """Letters only: every letter of a word is one token."""
    tokens = [*LETTERS, *(letter + "</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="<|endoftext|>", model_max_length=WINDOW)


def text_config(width: int, tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=WINDOW,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def tiny_vae(factor: int = 4) -> AutoencoderKL:
    levels = factor.bit_length()
    return AutoencoderKL(
        block_out_channels=(4,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=4,
        sample_size=64,
    )


def sd15_unet(**changes: object) -> UNet2DConditionModel:
    """The topology of SD1.5: four levels, one block per ViT, and so the same 197 names."""
    config: dict[str, object] = {
        "sample_size": 16,
        "block_out_channels": (8, 16, 16, 16),
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**{**config, **changes})


def sdxl_unet(**changes: object) -> UNet2DConditionModel:
    """The topology of SDXL: three levels, ViTs of 2 and 10 blocks, and so the same 612 names."""
    config: dict[str, object] = {
        "sample_size": 16,
        "block_out_channels": (8, 16, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (2, 2, 4),
        "use_linear_projection": True,
        "cross_attention_dim": 32,
        "norm_num_groups": 4,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 16 + 6 * 4,
    }
    return UNet2DConditionModel(**{**config, **changes})


@pytest.fixture(scope="session")
def sd15_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    pipeline = StableDiffusionPipeline(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(text_config(16, tokenizer)),
        tokenizer=tokenizer,
        unet=sd15_unet(),
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            skip_prk_steps=True,
            set_alpha_to_one=False,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("sd15")
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    pipeline = StableDiffusionXLPipeline(
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(text_config(16, tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(16, tokenizer)),
        tokenizer=tokenizer,
        tokenizer_2=clip_tokenizer(),
        unet=sdxl_unet(),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
    )
    folder = tmp_path_factory.mktemp("sdxl")
    pipeline.save_pretrained(folder)
    return folder
