# SPDX-License-Identifier: Apache-2.0
"""Configuration of a Vitron model."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, AutoConfig

__all__ = ["VitronConfig"]

SubConfig = dict[str, Any] | PretrainedConfig | None


class VitronConfig(PretrainedConfig):
    """Configuration of :class:`VitronForConditionalGeneration`.

    Attributes:
        backbone_config: Vision language model; any of ``AutoModelForImageTextToText``.
        region_token_id: Placeholder of a region.
        signal_token_ids: Signal tokens, task-specific ones before those that all tasks share (paper, 3.2).
        num_specific: Number of task-specific signal tokens.
        num_frames: Largest number of frames that are shown of a video; ``None`` leaves the choice to the
            video processor of the backbone.
        feature_width: Channels of a feature of the vision tower; by default the hidden size of the tower.
        region_form: ``vitron``, or ``published`` for weights of the authors' release, whose boxes are in
            pixels; ``published-mirrored`` also exchanges rows and columns of masks, as the release does.
        region_pooling: Patch weights of the first form: ``soft``, the covered share of a patch, or ``any``, 1
            for each patch that is touched.
        region_location: Whether regions carry a code of their location.
        mask_modules: Modules that the mask head serves.
        mask_width: Channels of the mask head.
        mask_stride: Pixels of the tower's input per mask pixel.
        mask_grid: Patches along a side for which the mask head learns places; others are interpolated.
        mask_side: Longest side, in pixels, of the image that the mask head reads.
        conditions: Projections of signals to a text encoder's space, by module: number of vectors
            (``num_vectors``), their ``width``, and the projection's ``form``, ``vitron`` or ``published``.
        base_model: Folder or hub id of the model to which all this was attached.
        training_domain: Kind of images that the model was trained on where it saw no photographs, such as
            ``drawn scenes``; users are told so. ``None`` for all others.
    """

    model_type = "vitron"
    # the base has a class property here, which pyright does not support
    sub_configs: ClassVar[Any] = {"backbone_config": AutoConfig}

    backbone_config: SubConfig = None
    region_token_id: int = 0
    signal_token_ids: tuple[int, ...] | list[int] = ()
    num_specific: int = 0
    num_frames: int | None = 8
    feature_width: int | None = None
    region_form: str = "vitron"
    region_pooling: str = "soft"
    region_location: bool = True
    mask_modules: tuple[str, ...] | list[str] = (
        "image_segmentation",
        "image_editing",
        "video_segmentation",
        "video_editing",
    )
    mask_width: int = 64
    mask_stride: int = 2
    mask_grid: int = 16
    mask_side: int = 512
    conditions: dict[str, Any] | None = None
    base_model: str | None = None
    training_domain: str | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        self.backbone_config = _sub_config(self.backbone_config)
        self.tie_word_embeddings = bool(
            getattr(self.backbone_config, "tie_word_embeddings", self.tie_word_embeddings)
        )
        self.conditions = dict(self.conditions or {})
        cast("Any", super()).__post_init__(**kwargs)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Any:
        """Return the configuration of the language model."""
        return self.backbone.get_text_config(decoder=decoder, encoder=encoder)

    @property
    def backbone(self) -> Any:
        """Configuration of the vision language model."""
        return self.backbone_config

    @property
    def text(self) -> Any:
        """Configuration of the language model."""
        return self.get_text_config()

    @property
    def vision(self) -> Any:
        """Configuration of the vision tower; ``None`` if the backbone names it otherwise."""
        return getattr(self.backbone, "vision_config", None)

    @property
    def num_signals(self) -> int:
        """Number of signal tokens behind a call."""
        return len(self.signal_token_ids)

    @property
    def context_length(self) -> int:
        """Largest number of tokens of a conversation."""
        return int(self.text.max_position_embeddings)

    @property
    def width(self) -> int:
        """Channels of a feature of the vision tower."""
        if self.feature_width is not None:
            return self.feature_width
        # the tower of Qwen2-VL calls the width of the language model its hidden size
        name = "embed_dim" if self.backbone.model_type == "qwen2_vl" else "hidden_size"
        return int(getattr(self.vision, name))

    def mask_size(self, view: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the mask of an image of ``view`` pixels (height, width)."""
        shrink = max(1.0, max(view) / self.mask_side)
        height, width = (-(-round(side / shrink) // self.mask_stride) for side in view)
        return height, width


def _sub_config(value: SubConfig) -> PretrainedConfig:
    if isinstance(value, PretrainedConfig):
        return value
    given = dict(value or {})
    return CONFIG_MAPPING[given.pop("model_type", "llava")](**given)


AutoConfig.register(VitronConfig.model_type, VitronConfig)
