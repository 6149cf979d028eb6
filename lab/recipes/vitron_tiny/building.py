# SPDX-License-Identifier: Apache-2.0
"""The small model before training: tokenizer, processor, and an InternVL of small size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    InternVLConfig,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor
from vitron.model import VitronConfig, VitronForConditionalGeneration, chat_template
from vitron.model.assembly import REGION_TOKEN, signal_tokens, special_tokens

__all__ = ["SIZES", "make_config", "make_model", "make_processor", "make_tokenizer", "tower_config"]

Size = Literal["tiny", "nano"]
SIZES: dict[Size, dict[str, int]] = {
    "tiny": {"hidden": 192, "layers": 6, "heads": 4, "kv": 2, "inner": 512, "mask": 64},
    "nano": {"hidden": 96, "layers": 3, "heads": 4, "kv": 2, "inner": 256, "mask": 32},
}
SIDE, PATCH, MERGE = 64, 8, 2
IMAGE_TOKENS = (SIDE // PATCH // MERGE) ** 2
END = "<|im_end|>"
TURNS = ("<|user|>", "<|system|>", "<|assistant|>")  # of the chat template "compact"
MEDIA = {
    "context_image_token": "<|image|>",
    "start_image_token": "<|image_start|>",
    "end_image_token": "<|image_end|>",
    "video_token": "<|video|>",
}
CONDITIONS = {"text_to_image": {"num_vectors": 24, "width": 128}}


def make_tokenizer(texts: Iterable[str], *, size: int = 771) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE; digits are single tokens.

    Ties are broken at random: a tokenizer belongs to one training and is shipped with it.
    """
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[MEDIA["context_image_token"], *special_tokens(), END, *TURNS, *_marks()],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=END, eos_token=END, extra_special_tokens=dict(MEDIA)
    )


def _marks() -> list[str]:
    return [token for token in MEDIA.values() if token != MEDIA["context_image_token"]]


def _id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


def tower_config() -> InternVLVisionConfig:
    """Return the configuration of the vision tower, in the sizes of the small CLIP."""
    return InternVLVisionConfig(
        hidden_size=160,
        intermediate_size=640,
        num_hidden_layers=5,
        num_attention_heads=5,
        image_size=SIDE,
        patch_size=PATCH,
        layer_norm_eps=1e-5,
        attention_bias=True,
        layer_scale_init_value=1.0,
    )


def make_config(tokenizer: PreTrainedTokenizerFast, size: Size = "tiny") -> VitronConfig:
    """Return the configuration."""
    sizes = SIZES[size]
    text = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=sizes["hidden"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["kv"],
        head_dim=sizes["hidden"] // sizes["heads"],
        intermediate_size=sizes["inner"],
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=_id(tokenizer, END),
        pad_token_id=_id(tokenizer, END),
    )
    backbone = InternVLConfig(
        text_config=text,
        vision_config=tower_config(),
        image_token_id=_id(tokenizer, MEDIA["context_image_token"]),
        image_seq_length=IMAGE_TOKENS,
        downsample_ratio=1 / MERGE,
        tie_word_embeddings=True,
    )
    return VitronConfig(
        backbone_config=backbone,
        region_token_id=_id(tokenizer, REGION_TOKEN),
        signal_token_ids=[_id(tokenizer, token) for token in signal_tokens()],
        num_specific=4,
        mask_width=sizes["mask"],
        mask_grid=SIDE // PATCH,
        conditions=CONDITIONS,
    )


def make_processor(tokenizer: PreTrainedTokenizerFast) -> InternVLProcessor:
    """Return the processor of the model."""
    size = {"height": SIDE, "width": SIDE}
    norm = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    return InternVLProcessor(
        GotOcr2ImageProcessor(size=size, crop_to_patches=False, min_patches=1, max_patches=1, **norm),
        tokenizer,
        InternVLVideoProcessor(size=size, **norm),
        image_seq_length=IMAGE_TOKENS,
        chat_template=chat_template("compact", MEDIA["context_image_token"], MEDIA["video_token"]),
    )


def make_model(config: VitronConfig, *, seed: int = 0) -> VitronForConditionalGeneration:
    """Return the untrained model; :mod:`recipes.vitron_tiny.tower` gives it a trained vision tower."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VitronForConditionalGeneration(config)
