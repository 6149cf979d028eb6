# SPDX-License-Identifier: Apache-2.0
"""A causal language model that reads images, videos and regions, and calls modules by text and signals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
)
from transformers.utils.generic import ModelOutput

from vitron.model.hf.configuration import VitronConfig, pooled_frames
from vitron.model.norms import fuse_norms
from vitron.model.regions import make_region_encoder
from vitron.model.signals import MaskHead, make_condition_head
from vitron.model.vision import make_projector, merge_patches, pool_frames

__all__ = ["VitronForConditionalGeneration", "VitronOutput"]

IGNORED = -100


@dataclass
class VitronOutput(ModelOutput):
    """Output of a forward pass.

    Attributes:
        loss: Mean cross-entropy of the next token, if labels are given.
        logits: ``(B, L, V)``.
        past_key_values: Key-value cache.
        hidden: Last hidden states, ``(B, L, D)``.
        patches: Features of all frames before the projector, ``(F, P, C)``; ``None`` without images.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    hidden: Tensor | None = None
    patches: Tensor | None = None


class VitronForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Vitron (arXiv 2412.19806, section 3) over any vision tower and any causal language model.

    Args:
        config: Configuration.

    Raises:
        ValueError: If the sizes do not fit each other.
    """

    config_class = VitronConfig
    base_model_prefix = "vitron"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: VitronConfig) -> None:
        super().__init__(config)
        _check(config)
        width, hidden = int(config.vision.hidden_size), int(config.text.hidden_size)
        self.vision_tower: Any = AutoModel.from_config(config.vision)
        self.language_model: Any = AutoModelForCausalLM.from_config(config.text)
        fuse_norms(self.language_model)
        # output_hidden_states would keep the states of all layers, but only the last is needed
        self.language_model.get_decoder().register_forward_hook(_keep_last_state)
        # hidden states of a tower are large and uneven; unnormalised, they outweigh what is added to them
        self.vision_norm = nn.LayerNorm(width)
        self.projector = make_projector(config.projector, width * config.spatial_merge**2, hidden)
        self.region_encoder = make_region_encoder(
            config.region_form,
            width,
            hidden,
            location=config.region_location,
            pooling=config.region_pooling,
        )
        self.signal_norm = nn.LayerNorm(hidden)
        self.mask_head = MaskHead(
            hidden,
            config.num_signals,
            width,
            patch_size=int(config.vision.patch_size),
            grid=config.grid,
            width=config.mask_width,
            stride=config.mask_stride,
            modules=tuple(config.mask_modules),
        )
        self.condition_heads = nn.ModuleDict(
            {module: make_condition_head(hidden, each) for module, each in (config.conditions or {}).items()}
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the language model's."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the language model's."""
        return self.language_model.get_output_embeddings()

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Return the patch features of images or frames.

        Args:
            pixel_values: Normalised, ``(F, 3, S, S)``.

        Returns:
            ``(F, P, C)``, normalised, row by row, without a class token.
        """
        tower = self.vision_tower
        states = tower(pixel_values=pixel_values.to(tower.dtype), output_hidden_states=True).hidden_states
        patches: Tensor = states[self.config.vision_layer]
        return self.vision_norm(patches[:, patches.shape[1] - self.config.grid**2 :])

    def project_features(self, patches: Tensor, frame_counts: Tensor) -> Tensor:
        """Return the embeddings of the image placeholders of all media in a row, ``(T, D)``.

        Args:
            patches: ``(F, P, C)``.
            frame_counts: Frames of each image (1) or video, ``(M,)``.
        """
        config = cast("VitronConfig", self.config)
        pooled = pool_frames(patches, frame_counts, config.temporal_pool)
        return self.projector(merge_patches(pooled, config.spatial_merge)).flatten(0, 1)

    def embed(
        self,
        input_ids: Tensor,
        patches: Tensor | None,
        frame_counts: Tensor | None,
        region_masks: Tensor | None,
        region_frames: Tensor | None,
    ) -> Tensor:
        """Return input embeddings with media and regions at their placeholders, ``(B, L, D)``.

        Raises:
            ValueError: If the numbers of placeholders and features differ.
        """
        embeds: Tensor = self.get_input_embeddings()(input_ids)
        if patches is not None and frame_counts is not None:
            tokens = self.project_features(patches, frame_counts)
            embeds = _scatter(embeds, input_ids == self.config.image_token_id, tokens, "patches")
        if region_masks is not None and len(region_masks):
            if patches is None or region_frames is None:
                raise ValueError("region_masks need pixel_values and region_frames")
            tokens = self.region_encoder(patches[region_frames], region_masks)
            embeds = _scatter(embeds, input_ids == self.config.region_token_id, tokens, "regions")
        return embeds

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        pixel_values: Tensor | None = None,
        frame_counts: Tensor | None = None,
        region_masks: Tensor | None = None,
        region_frames: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> VitronOutput:
        """Run the model.

        Args:
            input_ids: ``(B, L)``, with placeholders.
            attention_mask: ``(B, L)``, 0 on padding; on either side.
            position_ids: ``(B, L)``; by default counted from the first real token.
            past_key_values: Key-value cache; media and regions in it must not be given again.
            inputs_embeds: Embeddings instead of ids.
            labels: ``(B, L)``, -100 for positions without a loss.
            use_cache: Whether to return a cache.
            pixel_values: Normalised frames of all media in a row, ``(F, 3, S, S)``.
            frame_counts: Frames of each medium, ``(M,)``.
            region_masks: ``(R, S, S)``, in the order of their placeholders.
            region_frames: Row of ``pixel_values`` of each region, ``(R,)``.
            logits_to_keep: Number of last positions with logits, as in transformers.
            **kwargs: Arguments of the language model.
        """
        patches = None if pixel_values is None else self.get_image_features(pixel_values)
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("input_ids or inputs_embeds must be given")
            if patches is not None and frame_counts is None:
                frame_counts = torch.ones(len(patches), dtype=torch.long, device=patches.device)
            inputs_embeds = self.embed(input_ids, patches, frame_counts, region_masks, region_frames)
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            counted = attention_mask.long().cumsum(1) - 1
            position_ids = counted.clamp(min=0)[:, -inputs_embeds.shape[1] :]
        kwargs.pop("output_hidden_states", None)
        found = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        loss = None
        if labels is not None:
            shifted = found.logits[:, :-1].flatten(0, 1)
            loss = F.cross_entropy(shifted.float(), labels[:, 1:].flatten(), ignore_index=IGNORED)
        return VitronOutput(
            loss=loss,
            logits=found.logits,
            past_key_values=found.past_key_values,
            hidden=found.hidden_states[-1],
            patches=patches,
        )

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Drop media and regions once the cache holds them."""
        inputs = cast("dict[str, Any]", cast("Any", super()).prepare_inputs_for_generation(*args, **kwargs))
        cache = inputs.get("past_key_values")
        if cache is not None and cache.get_seq_length() > 0:
            for name in ("pixel_values", "frame_counts", "region_masks", "region_frames"):
                inputs.pop(name, None)
        return inputs

    def signals(self, hidden: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the signal embeddings of complete sets: v = [v_p ; v_s] (paper, 3.2).

        Args:
            hidden: ``(B, L, D)``.
            input_ids: ``(B, L)``.

        Returns:
            ``(K, num_signals, D)`` with the input embeddings of the tokens added and normalised, and the row
            of each, ``(K,)``, in the order of the batch.
        """
        wanted = torch.tensor(self.config.signal_token_ids, device=input_ids.device)
        count = len(wanted)
        if count == 0 or input_ids.shape[1] < count:
            return hidden.new_zeros(0, count, hidden.shape[-1]), input_ids.new_zeros(0)
        starts = (input_ids.unfold(1, count, 1) == wanted).all(-1).nonzero()
        rows, at = starts[:, :1], starts[:, 1:] + torch.arange(count, device=input_ids.device)
        taken = hidden[rows, at] + self.get_input_embeddings()(wanted)
        return self.signal_norm(taken.to(self.signal_norm.weight.dtype)), rows[:, 0]


def _keep_last_state(_decoder: nn.Module, _inputs: Any, output: Any) -> None:
    """Return the last hidden states as ``hidden_states``, which the language model's head passes on."""
    output.hidden_states = (output.last_hidden_state,)


def _scatter(embeds: Tensor, where: Tensor, features: Tensor, what: str) -> Tensor:
    found = int(where.sum())
    if found != len(features):
        raise ValueError(
            f"the text has {found} placeholders of {what}, but there are {len(features)} features"
        )
    return embeds.masked_scatter(where[..., None].expand_as(embeds), features.to(embeds.dtype))


def _check(config: VitronConfig) -> None:
    patch = int(config.vision.patch_size)
    if config.image_size % patch or config.grid % config.spatial_merge:
        raise ValueError(
            f"image_size must be a multiple of the patch size {patch}, and the {config.grid} patches of a "
            f"side of spatial_merge, got {config.image_size} and {config.spatial_merge}"
        )
    if patch % config.mask_stride:
        raise ValueError(f"mask_stride must divide the patch size {patch}, got {config.mask_stride}")
    if not 0 <= config.num_specific <= config.num_signals:
        raise ValueError(
            f"num_specific must be at most the {config.num_signals} signals, got {config.num_specific}"
        )
    pooled_frames(config.temporal_pool, 1)


AutoModel.register(VitronConfig, VitronForConditionalGeneration)
AutoModelForImageTextToText.register(VitronConfig, VitronForConditionalGeneration)
