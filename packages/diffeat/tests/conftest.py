# SPDX-License-Identifier: Apache-2.0
"""Tiny random pipelines in the real file formats, built once per run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLWan,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    PNDMScheduler,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    WanPipeline,
    WanTransformer3DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

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


def t5_tokenizer() -> T5Tokenizer:
    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *LETTERS]
    vocabulary = [(piece, -float(rank)) for rank, piece in enumerate(pieces)]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=WINDOW)


def t5_encoder(width: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=30, d_model=width, d_ff=2 * width, d_kv=width // 2, num_layers=1, num_heads=2)
    )


def bert(width: int) -> tuple[BertTokenizer, BertModel]:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *("##" + letter for letter in LETTERS)]
    tokenizer = BertTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)}, model_max_length=77
    )
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
    )
    return tokenizer, BertModel(config)


def build_sd15() -> StableDiffusionPipeline:
    tokenizer = clip_tokenizer()
    return StableDiffusionPipeline(
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


def build_sdxl() -> StableDiffusionXLPipeline:
    tokenizer = clip_tokenizer()
    return StableDiffusionXLPipeline(
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


def build_pixart() -> PixArtAlphaPipeline:
    transformer = PixArtTransformer2DModel(
        sample_size=16,
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=16,
        caption_channels=12,
        patch_size=2,
        use_additional_conditions=False,
    )
    return PixArtAlphaPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(12),
        vae=tiny_vae(),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )


def build_hunyuan() -> HunyuanDiTPipeline:
    transformer = HunyuanDiT2DModel(
        sample_size=8,
        num_layers=4,  # the second half has skips from the first
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        patch_size=2,
        hidden_size=16,
        cross_attention_dim=16,
        cross_attention_dim_t5=16,
        pooled_projection_dim=16,
        text_len=77,  # the pipeline knows no other lengths
        text_len_t5=256,
    )
    tokenizer, encoder = bert(16)
    return HunyuanDiTPipeline(
        vae=tiny_vae(8),  # the pipeline counts on 8 pixels per cell
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=transformer,
        scheduler=DDPMScheduler(prediction_type="v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        text_encoder_2=t5_encoder(16),
        tokenizer_2=t5_tokenizer(),
    )


def build_sd3() -> StableDiffusion3Pipeline:
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    tokenizer = clip_tokenizer()
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny_vae(),
        text_encoder=CLIPTextModelWithProjection(text_config(16, tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(text_config(16, tokenizer)),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_encoder(32),
        tokenizer_3=t5_tokenizer(),
    )


def build_flux() -> FluxPipeline:
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        guidance_embeds=True,
        axes_dims_rope=(4, 6, 6),
    )
    tokenizer = clip_tokenizer()
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=tiny_vae(),
        text_encoder=CLIPTextModel(text_config(16, tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=t5_encoder(32),
        tokenizer_2=t5_tokenizer(),
        transformer=transformer,
    )


def build_sana() -> SanaPipeline:
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=12,
        sample_size=16,
    )
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        encoder_qkv_multiscales=((), (), ()),
        decoder_qkv_multiscales=((), (), ()),
    )
    return SanaPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(12),
        vae=vae,
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True),
    )


def build_lumina2() -> Lumina2Pipeline:
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        hidden_size=24,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        in_channels=4,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(256, 16, 16),
        cap_feat_dim=12,
    )
    return Lumina2Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=tiny_vae(8),  # the pipeline counts on 8 pixels per cell
        text_encoder=t5_encoder(12),
        tokenizer=t5_tokenizer(),
    )


def build_z_image() -> ZImagePipeline:
    transformer = ZImageTransformer2DModel(
        dim=24,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        in_channels=4,
        cap_feat_dim=12,
        axes_dims=[4, 4, 4],
        axes_lens=[256, 16, 16],
    )
    tokenizer = t5_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    return ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=tiny_vae(),
        text_encoder=t5_encoder(12),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def build_wan() -> WanPipeline:
    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=12,
        freq_dim=8,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.1, 0.2, -0.1, 0.0],
        latents_std=[1.5, 2.0, 0.5, 1.0],
        scale_factor_spatial=4,
    )
    return WanPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5_encoder(12),
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=transformer,
    )


BUILDERS: dict[str, Callable[[], Any]] = {
    "SD1.5": build_sd15,
    "SDXL": build_sdxl,
    "PixArt": build_pixart,
    "Hunyuan": build_hunyuan,
    "SD3": build_sd3,
    "Flux": build_flux,
    "Sana": build_sana,
    "Lumina2": build_lumina2,
    "Z-Image": build_z_image,
    "Wan": build_wan,
}


def build(family: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = BUILDERS[family]()
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipeline


@pytest.fixture(scope="session")
def pipelines() -> Callable[[str], Any]:
    """Pipelines by family, shared: tests leave them as they were."""
    return cache(build)


@pytest.fixture
def fresh() -> Callable[[str], Any]:
    """Pipelines of their own, for tests that change them."""
    return build


@pytest.fixture(params=BUILDERS)
def pipeline(request: pytest.FixtureRequest, pipelines: Callable[[str], Any]) -> Any:
    """Each family's pipeline in turn, shared."""
    return pipelines(request.param)


@pytest.fixture(scope="session")
def sd15_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sd15")
    build("SD1.5").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdxl")
    build("SDXL").save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    """Two images of 64 pixels, ``(2, 3, 64, 64)``."""
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
