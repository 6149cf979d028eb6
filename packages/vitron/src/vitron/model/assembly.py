# SPDX-License-Identifier: Apache-2.0
"""A new model from a pretrained language model and a pretrained vision tower."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from vitron.model.hf.chat_templates import CHAT_TEMPLATES
from vitron.model.hf.configuration import VitronConfig
from vitron.model.hf.image_processing import VitronImageProcessor
from vitron.model.hf.modeling import VitronForConditionalGeneration
from vitron.model.hf.processing import IMAGE_TOKEN, REGION_TOKEN, VitronProcessor

__all__ = ["assemble", "make_processor", "signal_tokens", "special_tokens"]

TAGS = ("<module>", "</module>", "<instruction>", "</instruction>", "<region>", "</region>")


def signal_tokens(num_specific: int = 4, num_shared: int = 4) -> list[str]:
    """Return the signal tokens, task-specific ones first."""
    return [f"<sig_p{n}>" for n in range(num_specific)] + [f"<sig_s{n}>" for n in range(num_shared)]


def special_tokens(num_specific: int = 4, num_shared: int = 4, template: str = "compact") -> list[str]:
    """Return every text that must be a single token: placeholders, tags, signals, template tokens."""
    signals = signal_tokens(num_specific, num_shared)
    own = CHAT_TEMPLATES[template].special_tokens
    return list(dict.fromkeys([IMAGE_TOKEN, REGION_TOKEN, *TAGS, *signals, *own]))


def make_processor(
    tokenizer: Any,
    config: VitronConfig,
    *,
    template: str = "chatml",
    num_frames: int = 8,
    image_mean: Sequence[float] = (0.481, 0.458, 0.408),
    image_std: Sequence[float] = (0.269, 0.261, 0.276),
) -> VitronProcessor:
    """Return the processor of a configuration.

    Args:
        tokenizer: Fast tokenizer with all of :func:`special_tokens`; the template's end token becomes its
            end-of-sequence token.
        config: Configuration of the model.
        template: Name of one of :data:`vitron.model.CHAT_TEMPLATES`.
        num_frames: Largest number of frames that are shown of a video.
        image_mean: Mean of the three channels, in 0..1.
        image_std: Standard deviation of the three channels.
    """
    chosen = CHAT_TEMPLATES[template]
    tokenizer.eos_token = chosen.end_token
    if tokenizer.pad_token is None:
        tokenizer.pad_token = chosen.end_token
    size = {"height": config.image_size, "width": config.image_size}
    return VitronProcessor(
        VitronImageProcessor(size=size, image_mean=image_mean, image_std=image_std),
        tokenizer,
        chat_template=chosen.source,
        num_image_tokens=config.num_image_tokens,
        temporal_pool=config.temporal_pool,
        num_frames=num_frames,
    )


def assemble(
    language_model: Path | str,
    vision_tower: Path | str,
    *,
    template: str = "chatml",
    num_specific: int = 4,
    num_shared: int = 4,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    **settings: Any,
) -> tuple[VitronForConditionalGeneration, VitronProcessor]:
    """Join a pretrained language model and a pretrained vision tower; the weights between them are new.

    Placeholders, tags and signals become special tokens of the language model; their embeddings start at the
    mean of the others.

    Args:
        language_model: Folder or name of any model of ``AutoModelForCausalLM``.
        vision_tower: Folder or name of any vision model of ``AutoModel``, or of CLIP as a whole.
        template: Name of one of :data:`vitron.model.CHAT_TEMPLATES`.
        num_specific: Number of task-specific signal tokens.
        num_shared: Number of signal tokens that all tasks share.
        dtype: Dtype of all weights.
        seed: Random seed of the new weights.
        **settings: Fields of :class:`VitronConfig`, such as ``projector`` or ``temporal_pool``.

    Raises:
        ValueError: If there is no such template, or sizes do not fit each other.
    """
    if template not in CHAT_TEMPLATES:
        raise ValueError(f"there is no template {template!r}: choose one of {', '.join(CHAT_TEMPLATES)}")
    tokenizer: Any = AutoTokenizer.from_pretrained(language_model, use_fast=True)
    language: Any = AutoModelForCausalLM.from_pretrained(language_model, use_safetensors=True, dtype=dtype)
    tower: Any = AutoModel.from_pretrained(vision_tower, use_safetensors=True, dtype=dtype)
    tower = getattr(tower, "vision_model", None) if hasattr(tower, "text_model") else tower
    special = special_tokens(num_specific, num_shared, template)
    known = tokenizer.get_vocab()
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [each for each in special if each not in known]}
    )
    language.resize_token_embeddings(
        max(len(tokenizer), int(language.config.vocab_size)), mean_resizing=False
    )
    _initialise_with_mean(
        language, [tokenizer.convert_tokens_to_ids(each) for each in special if each not in known]
    )
    ids = tokenizer.convert_tokens_to_ids
    own: dict[str, Any] = {"image_size": int(tower.config.image_size)} | settings
    config = VitronConfig(
        text_config=language.config,
        vision_config=tower.config,
        image_token_id=ids(IMAGE_TOKEN),
        region_token_id=ids(REGION_TOKEN),
        signal_token_ids=[ids(each) for each in signal_tokens(num_specific, num_shared)],
        num_specific=num_specific,
        tie_word_embeddings=bool(language.config.tie_word_embeddings),
        **own,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = VitronForConditionalGeneration(config)
    model.to(dtype=dtype)
    model.language_model.load_state_dict(language.state_dict())
    model.vision_tower.load_state_dict(tower.state_dict(), strict=False)
    return model, make_processor(tokenizer, config, template=template)


@torch.no_grad()
def _initialise_with_mean(model: Any, new: list[int]) -> None:
    """Set new embeddings to the mean: far from it, a token would be generated at once, or never."""
    for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
        weight = embedding.weight
        old = torch.ones(len(weight), dtype=torch.bool)
        old[new] = False
        weight[new] = weight[old].mean(0)
