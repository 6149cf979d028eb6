# SPDX-License-Identifier: Apache-2.0
"""A new model from pretrained parts: any causal language model, any vision tower, and what joins them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from vitron.model.configuration import VitronConfig
from vitron.model.modeling import VitronForConditionalGeneration
from vitron.model.processing import VitronProcessor
from vitron.model.templates import TEMPLATES

__all__ = ["assemble"]


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
    """Join a pretrained language model and a pretrained vision tower; what is between them is new.

    Placeholders, tags and signals become special tokens of the language model, each a single id; their
    embeddings start at the mean of the others.

    Args:
        language_model: Folder or name of any model of ``AutoModelForCausalLM``.
        vision_tower: Folder or name of any vision model of ``AutoModel``, or of CLIP as a whole.
        template: Name of one of :data:`vitron.model.TEMPLATES`.
        num_specific: Signal tokens of a task.
        num_shared: Signal tokens that all tasks share.
        dtype: Of all weights.
        seed: Of the new weights.
        **settings: Of :class:`VitronConfig`, as ``projector`` or ``temporal_pool``.

    Raises:
        ValueError: If there is no such template, or sizes do not fit each other.
    """
    if template not in TEMPLATES:
        raise ValueError(f"there is no template {template!r}: choose one of {', '.join(TEMPLATES)}")
    tokenizer: Any = AutoTokenizer.from_pretrained(language_model, use_fast=True)
    words: Any = AutoModelForCausalLM.from_pretrained(language_model, use_safetensors=True, dtype=dtype)
    eyes: Any = AutoModel.from_pretrained(vision_tower, use_safetensors=True, dtype=dtype)
    eyes = getattr(eyes, "vision_model", None) if hasattr(eyes, "text_model") else eyes
    special = VitronProcessor.special_tokens(num_specific, num_shared, template)
    known = tokenizer.get_vocab()
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [each for each in special if each not in known]}
    )
    words.resize_token_embeddings(max(len(tokenizer), int(words.config.vocab_size)), mean_resizing=False)
    _start_at_the_mean(
        words, [tokenizer.convert_tokens_to_ids(each) for each in special if each not in known]
    )
    ids = tokenizer.convert_tokens_to_ids
    signals = [f"<sig_p{n}>" for n in range(num_specific)] + [f"<sig_s{n}>" for n in range(num_shared)]
    own: dict[str, Any] = {"image_size": int(eyes.config.image_size)} | settings
    config = VitronConfig(
        text_config=words.config,
        vision_config=eyes.config,
        image_token_id=ids("<|image|>"),
        region_token_id=ids("<|region|>"),
        signal_token_ids=[ids(each) for each in signals],
        num_specific=num_specific,
        template=template,
        tie_word_embeddings=bool(words.config.tie_word_embeddings),
        **own,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = VitronForConditionalGeneration(config)
    model.to(dtype=dtype)
    model.language_model.load_state_dict(words.state_dict())
    model.vision_tower.load_state_dict(eyes.state_dict(), strict=False)
    return model, VitronProcessor(tokenizer, config)


@torch.no_grad()
def _start_at_the_mean(words: Any, new: list[int]) -> None:
    """Give new tokens the mean embedding: far from it, one of them would be said at once, or never."""
    for embedding in (words.get_input_embeddings(), words.get_output_embeddings()):
        weight = embedding.weight
        old = torch.ones(len(weight), dtype=torch.bool)
        old[new] = False
        weight[new] = weight[old].mean(0)
