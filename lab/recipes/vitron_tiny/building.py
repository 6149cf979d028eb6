# SPDX-License-Identifier: Apache-2.0
"""The small model before training: tokenizer, sizes, and the vision tower of the small CLIP."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPVisionConfig, PreTrainedTokenizerFast, Qwen3Config
from vitron.model import CHAT_TEMPLATES, VitronConfig, VitronForConditionalGeneration, VitronProcessor
from vitron.model.assembly import make_processor, signal_tokens, special_tokens

__all__ = ["SIZES", "load_tower", "make_config", "make_model", "make_tokenizer", "tiny_processor"]

Size = Literal["tiny", "nano"]
SIZES: dict[Size, dict[str, int]] = {
    "tiny": {"hidden": 192, "layers": 6, "heads": 4, "kv": 2, "inner": 512, "mask": 64},
    "nano": {"hidden": 96, "layers": 3, "heads": 4, "kv": 2, "inner": 256, "mask": 32},
}
TEMPLATE = "compact"
CONDITIONS = {"text_to_image": {"num_vectors": 24, "width": 128}}


def make_tokenizer(texts: Iterable[str], *, size: int = 768) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE; digits are single tokens.

    Ties are broken at random: a tokenizer belongs to one training and is shipped with it.
    """
    special = special_tokens(template=TEMPLATE)
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    end = CHAT_TEMPLATES[TEMPLATE].end_token
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=end, eos_token=end)


def _id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


def make_config(tokenizer: PreTrainedTokenizerFast, size: Size = "tiny") -> VitronConfig:
    """Return the configuration; the vision tower is that of the small CLIP without its last layer."""
    sizes = SIZES[size]
    signals = [_id(tokenizer, token) for token in signal_tokens()]
    end = CHAT_TEMPLATES[TEMPLATE].end_token
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
        eos_token_id=_id(tokenizer, end),
        pad_token_id=_id(tokenizer, end),
    )
    vision = CLIPVisionConfig(
        hidden_size=160,
        intermediate_size=640,
        num_hidden_layers=5,
        num_attention_heads=5,
        image_size=64,
        patch_size=8,
        hidden_act="gelu",
    )
    return VitronConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=_id(tokenizer, "<|image|>"),
        region_token_id=_id(tokenizer, "<|region|>"),
        signal_token_ids=signals,
        vision_layer=-1,
        projector="mlp2x_gelu",
        spatial_merge=2,
        temporal_pool="none",
        mask_width=sizes["mask"],
        conditions=CONDITIONS,
        image_size=64,
    )


def tiny_processor(tokenizer: PreTrainedTokenizerFast, config: VitronConfig) -> VitronProcessor:
    """Return the processor of the model."""
    return make_processor(
        tokenizer,
        config,
        template=TEMPLATE,
        num_frames=8,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.25, 0.25, 0.25),
    )


def make_model(config: VitronConfig, *, seed: int = 0) -> VitronForConditionalGeneration:
    """Return the untrained model with a trained vision tower."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VitronForConditionalGeneration(config)
    model.vision_tower.load_state_dict(load_tower(config.vision.num_hidden_layers), strict=False)
    return model


def load_tower(layers: int, folder: Path | None = None) -> dict[str, Tensor]:
    """Return the weights of the small CLIP's vision tower under the names that transformers gives them.

    Args:
        layers: Taken from the bottom.
        folder: Of an open_clip model; by default the one that itaclip ships.
    """
    folder = folder or Path(str(resources.files("itaclip") / "assets" / "tiny-shapes"))
    width = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]["vision_cfg"]["width"]
    source = {
        name.removeprefix("visual."): each.float()
        for name, each in load_file(folder / "open_clip_model.safetensors").items()
        if name.startswith("visual.")
    }
    found = {
        "embeddings.class_embedding": source["class_embedding"],
        "embeddings.patch_embedding.weight": source["conv1.weight"],
        "embeddings.position_embedding.weight": source["positional_embedding"],
    }
    norms = {"pre_layrnorm": "ln_pre", "post_layernorm": "ln_post"}
    for number in range(layers):
        here, there = f"encoder.layers.{number}.", f"transformer.resblocks.{number}."
        norms |= {f"{here}layer_norm1": f"{there}ln_1", f"{here}layer_norm2": f"{there}ln_2"}
        norms |= {f"{here}mlp.fc1": f"{there}mlp.c_fc", f"{here}mlp.fc2": f"{there}mlp.c_proj"}
        norms[f"{here}self_attn.out_proj"] = f"{there}attn.out_proj"
        for place, letter in enumerate("qkv"):
            rows = slice(place * width, (place + 1) * width)
            for kind in ("weight", "bias"):
                found[f"{here}self_attn.{letter}_proj.{kind}"] = source[f"{there}attn.in_proj_{kind}"][rows]
    for new, old in norms.items():
        for kind in ("weight", "bias"):
            found[f"{new}.{kind}"] = source[f"{old}.{kind}"]
    return found
