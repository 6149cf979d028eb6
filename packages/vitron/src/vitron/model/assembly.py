# SPDX-License-Identifier: Apache-2.0
"""A new model from a pretrained vision language model, or from a language model and a vision tower."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from common_kernels.runtime.hub import find_model
from tokenizers import AddedToken
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from vitron.model.hf.chat import chat_template
from vitron.model.hf.configuration import VitronConfig
from vitron.model.hf.features import family_of
from vitron.model.hf.modeling import VitronForConditionalGeneration
from vitron.protocol.lexer import TAGS

__all__ = ["REGION_TOKEN", "attach", "attach_to", "join_parts", "signal_tokens", "special_tokens"]

REGION_TOKEN = "<|region|>"

_log = logging.getLogger(__name__)


def signal_tokens(num_specific: int = 4, num_shared: int = 4) -> list[str]:
    """Return the signal tokens, task-specific ones first."""
    return [f"<sig_p{n}>" for n in range(num_specific)] + [f"<sig_s{n}>" for n in range(num_shared)]


def special_tokens(num_specific: int = 4, num_shared: int = 4) -> list[str]:
    """Return every text that must be a single token besides those of the backbone: region, tags, signals."""
    return [REGION_TOKEN, *TAGS, *signal_tokens(num_specific, num_shared)]


def attach(
    name_or_path: Path | str,
    *,
    num_specific: int = 4,
    num_shared: int = 4,
    template: str | None = None,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
    **kwargs: Any,
) -> tuple[VitronForConditionalGeneration, Any]:
    """Attach region encoder, signals and heads to a vision language model; their weights are new.

    Tags, signals and the placeholder of regions become special tokens, whose embeddings start at the mean of
    the others. Images are resized as a whole: what a user marks may not be cut off.

    Args:
        name_or_path: Folder or name of any model of ``AutoModelForImageTextToText``.
        num_specific: Number of task-specific signal tokens.
        num_shared: Number of signal tokens that all tasks share.
        template: Chat template for a model without one; see :func:`vitron.model.hf.chat.chat_template`.
        seed: Random seed of the new weights.
        settings: Fields of :class:`VitronConfig`, such as ``mask_width``.
        **kwargs: Arguments of transformers, such as ``dtype``, ``device_map`` or ``quantization_config``.

    Returns:
        The model, and the processor of the backbone.

    Raises:
        ModelNotFoundError: If there is no such model.
        ValueError: If transformers knows no such model, or the model has no fast tokenizer.
    """
    place = find_model(name_or_path)
    found: Any = AutoConfig.from_pretrained(place)
    if found.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise ValueError(f"{name_or_path} is a model of type {found.model_type}, which reads no images")
    backbone: Any = AutoModelForImageTextToText.from_pretrained(place, **({"use_safetensors": True} | kwargs))
    processor: Any = AutoProcessor.from_pretrained(place)
    return attach_to(
        backbone,
        processor,
        num_specific=num_specific,
        num_shared=num_shared,
        template=template,
        seed=seed,
        settings=(settings or {}) | {"base_model": _lasting(name_or_path)},
    )


def _lasting(name_or_path: Path | str) -> str:
    path = Path(name_or_path)
    return str(path.resolve()) if path.is_dir() else str(name_or_path)


def attach_to(
    backbone: Any,
    processor: Any,
    *,
    num_specific: int = 4,
    num_shared: int = 4,
    template: str | None = None,
    seed: int = 0,
    settings: dict[str, Any] | None = None,
) -> tuple[VitronForConditionalGeneration, Any]:
    """Attach to a model in memory; see :func:`attach`."""
    tokenizer = processor.tokenizer
    _choose_template(processor, template)
    _resize_whole_images(processor)
    names = signal_tokens(num_specific, num_shared)
    new = add_tokens(tokenizer, special_tokens(num_specific, num_shared))
    grow_embeddings(backbone, len(tokenizer), new)
    ids = tokenizer.convert_tokens_to_ids
    attention = _attention(backbone.config)
    chosen: dict[str, Any] = {"num_frames": _num_frames(backbone.config, processor)} | (settings or {})
    config = VitronConfig(
        backbone_config=backbone.config,
        region_token_id=ids(REGION_TOKEN),
        signal_token_ids=[ids(each) for each in names],
        num_specific=num_specific,
        **chosen,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VitronForConditionalGeneration(config, backbone)
    for part, chosen in attention:
        part._attn_implementation_internal = chosen  # a new configuration resets that of its parts
    tower = next(model.vision_tower.parameters())
    dtype = tower.dtype if tower.is_floating_point() else backbone.dtype
    for name, part in model.named_children():
        if name != "backbone":
            part.to(tower.device, dtype)
    model.generation_config = backbone.generation_config
    return model, processor


def add_tokens(tokenizer: Any, names: Sequence[str]) -> list[int]:
    """Add special tokens that a tokenizer lacks, and return their ids."""
    known = tokenizer.get_vocab()
    new = [each for each in names if each not in known]
    tokenizer.add_tokens(
        [AddedToken(each, special=True, normalized=False) for each in new], special_tokens=True
    )
    return [int(tokenizer.convert_tokens_to_ids(each)) for each in new]


@torch.no_grad()
def grow_embeddings(model: Any, size: int, new: Sequence[int]) -> None:
    """Make room for new tokens, whose embeddings become the mean of the others.

    Far from the mean, a token would be generated at once, or never.

    Args:
        model: Model.
        size: Number of tokens of the tokenizer.
        new: Ids of the new tokens.
    """
    rows = len(model.get_input_embeddings().weight)
    if size > rows:
        model.resize_token_embeddings(size, mean_resizing=False)
    chosen = list(new)
    weights = {each.weight for each in (model.get_input_embeddings(), model.get_output_embeddings()) if each}
    for weight in weights:
        old = torch.ones(len(weight), dtype=torch.bool, device=weight.device)
        old[chosen] = False
        weight[chosen] = weight[old].float().mean(0).to(weight.dtype)


def _attention(config: Any) -> list[tuple[Any, Any]]:
    """Return a configuration and its parts, each with its kind of attention."""
    parts = [getattr(config, name, None) for name in config.sub_configs]
    inner = [each for part in parts if part is not None for each in _attention(part)]
    return [(config, config._attn_implementation), *inner]


def _choose_template(processor: Any, name: str | None) -> None:
    if name is None and (getattr(processor, "chat_template", None) or processor.tokenizer.chat_template):
        return
    if name is None:
        name = "vicuna"
        _log.warning("the model has no chat template: 'vicuna' is used")
    source = chat_template(name, processor.image_token, getattr(processor, "video_token", None))
    processor.chat_template = processor.tokenizer.chat_template = source


def _resize_whole_images(processor: Any) -> None:
    """Replace the centre crop of CLIP, which cuts off what does not lie in the middle."""
    images = processor.image_processor
    crop = getattr(images, "crop_size", None)
    if getattr(images, "do_center_crop", False) and crop is not None:
        images.size = {"height": crop["height"], "width": crop["width"]}
        images.do_center_crop = False


def _num_frames(config: Any, processor: Any) -> int | None:
    """Return how many frames of a video are shown; ``None`` where the video processor has its own rule."""
    videos = getattr(processor, "video_processor", None)
    if not family_of(config.model_type).videos or videos is None:
        return 8
    if getattr(videos, "do_sample_frames", False) and getattr(videos, "fps", None):
        return None
    return getattr(videos, "num_frames", None) or 8


def join_parts(
    language_model: Path | str,
    vision_tower: Path | str,
    *,
    template: str | None = None,
    vision_layer: int = -2,
    seed: int = 0,
    **kwargs: Any,
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Join a pretrained language model and a pretrained vision tower to a LLaVA; its projector is new.

    Args:
        language_model: Folder or name of any model of ``AutoModelForCausalLM``.
        vision_tower: Folder or name of a vision model of ``AutoModel``, or of CLIP as a whole.
        template: Chat template for a language model without one.
        vision_layer: Hidden state of the tower that is used.
        seed: Random seed of the projector.
        **kwargs: Arguments of transformers, such as ``dtype``.

    Raises:
        ModelNotFoundError: If there is no such model.
    """
    kwargs = {"use_safetensors": True} | kwargs
    language_model, vision_tower = find_model(language_model), find_model(vision_tower)
    tokenizer: Any = AutoTokenizer.from_pretrained(language_model, use_fast=True)
    language: Any = AutoModelForCausalLM.from_pretrained(language_model, **kwargs)
    tower: Any = AutoModel.from_pretrained(vision_tower, **kwargs)
    tower = getattr(tower, "vision_model", tower) if hasattr(tower, "text_model") else tower
    new = add_tokens(tokenizer, ["<image>"])
    grow_embeddings(language, len(tokenizer), new)
    patch = int(tower.config.patch_size)
    has_class_token = hasattr(getattr(tower, "embeddings", None), "class_embedding")
    strategy = "default" if has_class_token else "full"
    config = cast("Any", LlavaConfig)(
        text_config=language.config,
        vision_config=tower.config,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(int(tower.config.image_size) // patch) ** 2,
        vision_feature_layer=vision_layer,
        vision_feature_select_strategy=strategy,
        tie_word_embeddings=bool(language.config.tie_word_embeddings),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config).to(language.dtype)
    model.get_decoder().load_state_dict(language.get_decoder().state_dict())
    model.get_output_embeddings().load_state_dict(language.get_output_embeddings().state_dict())
    model.get_encoder(modality="image").load_state_dict(tower.state_dict(), strict=False)
    processor = LlavaProcessor(
        AutoImageProcessor.from_pretrained(vision_tower),
        tokenizer,
        patch_size=patch,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=int(has_class_token),
    )
    if template is not None or not tokenizer.chat_template:
        _choose_template(processor, template)
    return model, processor
