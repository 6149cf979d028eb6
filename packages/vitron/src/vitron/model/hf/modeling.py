# SPDX-License-Identifier: Apache-2.0
"""A vision language model of transformers that also reads regions, and calls modules by text and signals."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers.models.auto.modeling_auto import AutoModel, AutoModelForImageTextToText
from transformers.utils.generic import ModelOutput

from vitron.model.hf.configuration import VitronConfig
from vitron.model.hf.features import FrameFeatures, TowerPass, group_by_shape, read_passes
from vitron.model.regions import PublishedRegionEncoder, make_region_encoder
from vitron.model.signals import MaskGroup, MaskHead, make_condition_head

__all__ = ["VitronForConditionalGeneration", "VitronOutput"]

IGNORED = -100
OWN_INPUTS = ("frame_rows", "region_masks", "region_frames", "region_boxes")
# what transformers calls the key-value cache: "past_key_values" before 5.24
CACHE = "cache" if hasattr(ModelOutput, "past_key_values") else "past_key_values"


@dataclass
class VitronOutput(ModelOutput):
    """Output of a forward pass.

    Attributes:
        loss: Mean cross-entropy of the next token, if labels are given.
        logits: ``(B, L, V)``.
        cache: Key-value cache; before transformers 5.24 it is called ``past_key_values``.
        hidden: Last hidden states, ``(B, L, D)``.
        features: Features of the shown frames; ``None`` without ``frame_rows``.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    if CACHE == "cache":
        cache: Any = None
    else:
        past_key_values: Any = None
    hidden: Tensor | None = None
    features: FrameFeatures | None = None


@dataclass
class _Call:
    """State of one forward pass, for the hooks of vision tower and decoder."""

    model: VitronForConditionalGeneration
    input_ids: Tensor | None
    frame_rows: Tensor | None
    regions: tuple[Tensor | Sequence[Tensor], Tensor, Tensor | None] | None
    passes: list[TowerPass] = field(default_factory=list[TowerPass])
    features: FrameFeatures | None = None
    hidden: Tensor | None = None

    def read_features(self) -> FrameFeatures | None:
        """Return the features of the shown frames, once the tower has run."""
        if self.features is None and self.frame_rows is not None and self.passes:
            model = self.model
            self.features = read_passes(self.passes, self.frame_rows, model.config.vision, model.feature_norm)
        return self.features


# each pass has its own: passes of several threads do not see each other
_CURRENT: ContextVar[_Call | None] = ContextVar("vitron_forward", default=None)


class VitronForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Vitron (arXiv 2412.19806, section 3) on any image-text-to-text model of transformers.

    Args:
        config: Configuration.
        backbone: Vision language model; by default a new one of the configuration.

    Raises:
        ValueError: If the sizes do not fit each other.
    """

    config_class = VitronConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    input_modalities = ["image", "text", "video"]  # noqa: RUF012  # as the base declares it
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: VitronConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if not 0 <= config.num_specific <= config.num_signals:
            raise ValueError(
                f"num_specific must be at most the {config.num_signals} signals, got {config.num_specific}"
            )
        self.backbone: Any = backbone or AutoModelForImageTextToText.from_config(config.backbone)
        # hooks are functions of this module: a model can be copied and pickled
        self.backbone.get_encoder(modality="image").register_forward_hook(_keep_states, with_kwargs=True)
        self.backbone.get_decoder().register_forward_pre_hook(_place_regions, with_kwargs=True)
        self.backbone.get_decoder().register_forward_hook(_keep_hidden)
        hidden = int(config.text.hidden_size)
        # hidden states of a tower are large and uneven; unnormalised, they outweigh what is added to them;
        # the region encoder of the release was trained on them as they are
        is_published = config.region_form.startswith("published")
        self.feature_norm = nn.Identity() if is_published else nn.LayerNorm(config.width)
        self.region_encoder = make_region_encoder(
            config.region_form,
            config.width,
            hidden,
            location=config.region_location,
            pooling=config.region_pooling,
        )
        self.signal_norm = nn.LayerNorm(hidden)
        self.mask_head = MaskHead(
            hidden,
            config.num_signals,
            config.width,
            grid=config.mask_grid,
            width=config.mask_width,
            stride=config.mask_stride,
            modules=tuple(config.mask_modules),
        )
        self.condition_heads = nn.ModuleDict(
            {module: make_condition_head(hidden, each) for module, each in (config.conditions or {}).items()}
        )
        # all hidden states would be kept for the last; not every backbone can leave out logits
        known = signature(self.backbone.forward).parameters
        self._unknown_inputs = {"output_hidden_states", *({"logits_to_keep"} - set(known))}
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the language model's."""
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's."""
        self.backbone.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the language model's."""
        return self.backbone.get_output_embeddings()

    def get_decoder(self) -> nn.Module:
        """Return the language model without its head."""
        return self.backbone.get_decoder()

    @property
    def language_model(self) -> nn.Module:
        """The language model without its head."""
        return self.get_decoder()

    @property
    def vision_tower(self) -> nn.Module:
        """The vision tower."""
        return self.backbone.get_encoder(modality="image")

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        frame_rows: Tensor | None = None,
        region_masks: Tensor | Sequence[Tensor] | None = None,
        region_frames: Tensor | None = None,
        region_boxes: Tensor | None = None,
        cache: Any = None,
        **kwargs: Any,
    ) -> VitronOutput:
        """Run the model.

        Args:
            input_ids: ``(B, L)``, with placeholders.
            attention_mask: ``(B, L)``, 0 on padding; on either side.
            position_ids: ``(B, L)``, or ``(3, B, L)``; by default :meth:`positions`.
            past_key_values: Former name of ``cache``.
            inputs_embeds: Embeddings instead of ids.
            labels: ``(B, L)``, -100 for positions without a loss.
            frame_rows: Row in the batch of the vision tower of each shown frame, ``(F,)``.
            region_masks: Masks as the tower sees the image, 0 to 1, in the order of their placeholders:
                ``(R, H, W)``, or a list of ``(H, W)``.
            region_frames: Position among the shown frames of each region, ``(R,)``.
            region_boxes: Corners of regions as fractions of the image, ``(R, 4)``; NaN for the box around
                the mask.
            cache: Key-value cache; media and regions in it must not be given again.
            **kwargs: Inputs of the backbone, such as ``pixel_values``.

        Raises:
            ValueError: If the numbers of placeholders and regions differ.
        """
        regions = None
        if region_masks is not None and len(region_masks):
            if region_frames is None or frame_rows is None:
                raise ValueError("region_masks need region_frames and frame_rows")
            regions = (region_masks, region_frames, region_boxes)
        cache = past_key_values if cache is None else cache
        is_first = cache is None or cache.get_seq_length() == 0
        if is_first:
            _check_regions(input_ids, self.config.region_token_id, 0 if regions is None else len(regions[0]))
        if position_ids is None and input_ids is not None and (is_first or attention_mask is not None):
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            if is_first or not self.uses_3d_positions:
                given = {"input_ids": input_ids, "attention_mask": mask, **kwargs}
                position_ids = self.positions(given)[0][..., -input_ids.shape[1] :]
        for name in self._unknown_inputs:
            kwargs.pop(name, None)
        call = _Call(self, input_ids, frame_rows, regions)
        token = _CURRENT.set(call)
        try:
            found = self.backbone(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                inputs_embeds=inputs_embeds,
                **{CACHE: cache},
                **kwargs,
            )
            features = call.read_features()
        finally:
            _CURRENT.reset(token)
        loss = None
        if labels is not None:
            shifted = found.logits[:, :-1].flatten(0, 1)
            wanted = labels[:, 1:].flatten().to(shifted.device)
            loss = F.cross_entropy(shifted.float(), wanted, ignore_index=IGNORED)
        return VitronOutput(
            loss=loss,
            logits=found.logits,
            hidden=call.hidden,
            features=features,
            **{CACHE: found.get(CACHE)},
        )

    # -- positions

    @property
    def uses_3d_positions(self) -> bool:
        """Whether image tokens have positions in time, height and width, as in Qwen2-VL."""
        return hasattr(self.backbone.base_model, "get_rope_index")

    def positions(self, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the positions of whole conversations.

        Nothing is kept in the model: the next token of row ``b`` has the position of its number of tokens
        so far plus the offset of the row.

        Args:
            inputs: Inputs of the model; at least ``input_ids`` and ``attention_mask``.

        Returns:
            Positions ``(B, L)``, or ``(3, B, L)`` for models with three axes, and offsets ``(B,)``.
        """
        mask = inputs["attention_mask"]
        counted = (mask.long().cumsum(1) - 1).clamp(min=0)
        none = torch.zeros(len(mask), dtype=torch.long, device=mask.device)
        if not self.uses_3d_positions:
            return counted, none
        grids = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts")
        given = {name: inputs[name] for name in grids if inputs.get(name) is not None}
        kinds = inputs.get("mm_token_type_ids")
        if kinds is None or not given:
            return counted.expand(3, -1, -1), none
        found, offsets = self.backbone.base_model.get_rope_index(
            input_ids=inputs["input_ids"], mm_token_type_ids=kinds, attention_mask=mask, **given
        )
        return found, offsets[:, 0]

    def _prepare_position_ids_for_generation(
        self, inputs_tensor: Tensor, model_kwargs: dict[str, Any]
    ) -> Tensor:
        """Return the positions with which ``generate`` begins; it counts on from the last."""
        ids = model_kwargs.get("input_ids")
        ids = inputs_tensor if ids is None or not ids.shape[1] else ids
        mask = model_kwargs.get("attention_mask")
        mask = torch.ones(ids.shape[:2], dtype=torch.long, device=ids.device) if mask is None else mask
        return self.positions(model_kwargs | {"input_ids": ids, "attention_mask": mask})[0]

    def _validate_model_kwargs(self, model_kwargs: dict[str, Any]) -> None:
        """Accept the inputs of the backbone, which :meth:`forward` does not name."""
        known = signature(self.backbone.forward).parameters
        own = {name: each for name, each in model_kwargs.items() if name not in known}
        cast("Any", super())._validate_model_kwargs(own)

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Drop media and regions once the cache holds them."""
        inputs = cast("dict[str, Any]", cast("Any", super()).prepare_inputs_for_generation(*args, **kwargs))
        cache = inputs.get(CACHE)
        if cache is not None and cache.get_seq_length() > 0:
            for name in (*OWN_INPUTS, "token_type_ids"):
                inputs.pop(name, None)
        return inputs

    # -- regions, masks and signals

    @torch.no_grad()
    def frame_features(self, inputs: dict[str, Any]) -> FrameFeatures:
        """Return the features of images or videos without a conversation.

        Args:
            inputs: ``frame_rows`` and the inputs of the backbone, such as ``pixel_values``.

        Raises:
            ValueError: If the backbone offers no way to read images alone.
        """
        call = _Call(self, None, inputs["frame_rows"], None)
        token = _CURRENT.set(call)
        try:
            for kind, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
                if inputs.get(pixels) is not None:
                    read = getattr(self.backbone, f"get_{kind}_features")
                    known = signature(read).parameters
                    read(**{key: each for key, each in inputs.items() if key in known})
            features = call.read_features()
        finally:
            _CURRENT.reset(token)
        if features is None:
            raise ValueError("there is no image, or the backbone does not read images alone")
        return features

    def encode_regions(
        self,
        features: FrameFeatures,
        masks: Tensor | Sequence[Tensor],
        frames: Tensor,
        boxes: Tensor | None = None,
    ) -> Tensor:
        """Return one embedding a region, ``(R, D)``; arguments as of :meth:`forward`."""
        if not isinstance(self.region_encoder, PublishedRegionEncoder):
            boxes = None
        maps = [features.maps[frame] for frame in frames.tolist()]
        out: list[Tensor | None] = [None] * len(maps)
        for places, stacked in group_by_shape(maps):
            for inner, own in group_by_shape([masks[place] for place in places]):
                here = [places[place] for place in inner]
                corners = () if boxes is None else (boxes[here].to(stacked.device),)
                tokens = self.region_encoder(stacked[inner], own.to(stacked), *corners)
                for place, each in zip(here, tokens, strict=True):
                    out[place] = each
        return torch.stack(cast("list[Tensor]", out))

    def mask_groups(
        self, signals: Tensor, modules: Sequence[str], frames: Sequence[int], features: FrameFeatures
    ) -> list[MaskGroup]:
        """Return the masks that signals describe, those of frames of one size together.

        Args:
            signals: Signals of the call of each mask, ``(N, num_signals, D)``.
            modules: Module of each mask.
            frames: Position among the shown frames of each mask.
            features: Features of the shown frames.
        """
        config = cast("VitronConfig", self.config)
        groups = list[MaskGroup]()
        for outer, views in group_by_shape([features.views[frame] for frame in frames]):
            for inner, maps in group_by_shape([features.maps[frames[place]] for place in outer]):
                places = [outer[place] for place in inner]
                images = views[inner].to(maps)
                height, width = config.mask_size((images.shape[-2], images.shape[-1]))
                if max(images.shape[-2:]) > config.mask_side:
                    size = (height * config.mask_stride, width * config.mask_stride)
                    images = F.interpolate(images, size, mode="bilinear", antialias=True)
                chosen = signals[places].to(maps)
                query, fine = self.mask_head.features(chosen, [modules[n] for n in places], maps, images)
                groups.append(MaskGroup(places, query, fine))
        return groups

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
        taken = hidden[rows, at] + self.get_input_embeddings()(wanted).to(hidden)
        return self.signal_norm(taken.to(self.signal_norm.weight)), rows[:, 0]


def _check_regions(input_ids: Tensor | None, token: int, count: int) -> None:
    found = 0 if input_ids is None else int((input_ids == token).sum())
    if found != count:
        raise ValueError(f"the text has {found} placeholders of regions, and there are {count} regions")


def _keep_states(tower: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
    """Keep what the vision tower read and returned, if a frame of it may be asked for."""
    call = _CURRENT.get()
    if call is None or call.frame_rows is None:
        return
    pixels = next((kwargs[name] for name in ("pixel_values", "hidden_states") if name in kwargs), None)
    layer = getattr(call.model.config.backbone, "vision_feature_layer", None)
    states = getattr(output, "hidden_states", None)
    # the layer that the backbone itself reads, which its tower then returns
    chosen = states[layer] if isinstance(layer, int) and states is not None else output.last_hidden_state
    grid = kwargs.get("grid_thw")
    call.passes.append(TowerPass(args[0] if pixels is None else pixels, chosen, grid))


def _place_regions(
    decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Put the embeddings of regions at their placeholders, where the decoder would read the token's own."""
    call = _CURRENT.get()
    if call is None or call.regions is None:
        return None
    features = call.read_features()
    if features is None:
        raise ValueError("regions need the image on which they lie")
    assert call.input_ids is not None
    embeds: Tensor = kwargs["inputs_embeds"]
    tokens = call.model.encode_regions(features, *call.regions).to(embeds)
    where = (call.input_ids == call.model.config.region_token_id).to(embeds.device)
    placed = embeds.masked_scatter(where[..., None].expand_as(embeds), tokens)
    return args, kwargs | {"inputs_embeds": placed}


def _keep_hidden(decoder: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    """Keep the last hidden states; ``output_hidden_states`` would keep those of all layers."""
    call = _CURRENT.get()
    if call is not None:
        call.hidden = output.last_hidden_state


AutoModel.register(VitronConfig, VitronForConditionalGeneration)
AutoModelForImageTextToText.register(VitronConfig, VitronForConditionalGeneration)
