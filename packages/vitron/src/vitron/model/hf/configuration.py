# SPDX-License-Identifier: Apache-2.0
"""Configuration of a Vitron model."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, AutoConfig

__all__ = ["VitronConfig", "pooled_frames"]

Pooling = Literal["soft", "any"]
SubConfig = dict[str, Any] | PretrainedConfig | None


class VitronConfig(PretrainedConfig):
    """Configuration of :class:`VitronForConditionalGeneration`.

    Attributes:
        text_config: Language model; any of ``AutoModelForCausalLM``.
        vision_config: Vision tower; any of ``AutoModel`` that returns patches row by row.
        image_token_id: Placeholder of one image feature.
        region_token_id: Placeholder of a region.
        signal_token_ids: Signal tokens, task-specific ones before those that all tasks share (paper, 3.2).
        num_specific: Number of task-specific signal tokens.
        vision_layer: Hidden state of the tower that is used.
        projector: ``linear``, ``identity``, or ``mlp{n}x_gelu`` with ``n`` linear layers.
        spatial_merge: Patches along each side that are joined to one token.
        temporal_pool: Pooling of a video's frames: ``mean`` (paper), ``none``, or ``every-k``, the mean of
            every k frames.
        region_form: ``vitron``, or ``published`` for weights of the authors' release, whose boxes are in
            pixels; ``published-mirrored`` also exchanges rows and columns of masks, as the release does.
        region_pooling: Patch weights of the first form: ``soft``, the covered share of a patch, or ``any``, 1
            for each patch that is touched.
        region_location: Whether regions carry a code of their location.
        mask_modules: Modules that the mask head serves.
        mask_width: Channels of the mask head.
        mask_stride: Input pixels per mask pixel; divides the patch size.
        conditions: Projections of signals to a text encoder's space, by module: number of vectors
            (``num_vectors``), their ``width``, and the projection's ``form``, ``vitron`` or ``published``.
        image_size: Side of the square input of the tower.
    """

    model_type = "vitron"
    # the base has a class property here, which pyright does not support
    sub_configs: ClassVar[Any] = {"text_config": AutoConfig, "vision_config": AutoConfig}

    text_config: SubConfig = None
    vision_config: SubConfig = None
    image_token_id: int = 0
    region_token_id: int = 1
    signal_token_ids: tuple[int, ...] | list[int] = ()
    num_specific: int = 4
    vision_layer: int = -2
    projector: str = "mlp2x_gelu"
    spatial_merge: int = 1
    temporal_pool: str = "mean"
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
    conditions: dict[str, Any] | None = None
    image_size: int = 336
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        self.text_config = _sub_config(self.text_config, "llama")
        self.vision_config = _sub_config(self.vision_config, "clip_vision_model")
        self.conditions = dict(self.conditions or {})
        cast("Any", super()).__post_init__(**kwargs)

    @property
    def text(self) -> Any:
        """Configuration of the language model."""
        return self.text_config

    @property
    def vision(self) -> Any:
        """Configuration of the vision tower."""
        return self.vision_config

    @property
    def grid(self) -> int:
        """Patches along a side of the square."""
        return self.image_size // int(self.vision.patch_size)

    @property
    def num_signals(self) -> int:
        """Number of signal tokens behind a call."""
        return len(self.signal_token_ids)

    @property
    def num_image_tokens(self) -> int:
        """Tokens of one image."""
        return (self.grid // self.spatial_merge) ** 2


def pooled_frames(temporal_pool: str, frames: int) -> int:
    """Return the number of blocks of image tokens of a video.

    Args:
        temporal_pool: Pooling of a video's frames; see :class:`VitronConfig`.
        frames: Number of shown frames.

    Raises:
        ValueError: If ``temporal_pool`` is unknown.
    """
    if temporal_pool == "mean":
        return 1
    if temporal_pool == "none":
        return frames
    word, _, number = temporal_pool.partition("-")
    if word != "every" or not number.isdecimal() or int(number) < 1:
        raise ValueError(
            f"temporal_pool must be mean, none or every-k with a number for k, got {temporal_pool!r}"
        )
    return -(-frames // int(number))


def _sub_config(value: SubConfig, default: str) -> PretrainedConfig:
    if isinstance(value, PretrainedConfig):
        return value
    given = dict(value or {})
    return CONFIG_MAPPING[given.pop("model_type", default)](**given)


AutoConfig.register(VitronConfig.model_type, VitronConfig)
