# SPDX-License-Identifier: Apache-2.0
"""What a model is built of."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, cast

from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig

__all__ = ["VitronConfig"]

Pooling = Literal["soft", "any"]
SubConfig = dict[str, Any] | PretrainedConfig | None


class VitronConfig(PretrainedConfig):
    """Configuration of :class:`VitronForConditionalGeneration`.

    Attributes:
        text_config: Of any causal language model that ``AutoModelForCausalLM`` knows.
        vision_config: Of any vision tower that ``AutoModel`` knows and that returns patches in rows.
        image_token_id: Placeholder that a patch feature takes the place of.
        region_token_id: Placeholder of a region.
        signal_token_ids: Signal tokens, those of a task before those that all tasks share (paper, 3.2).
        num_specific: How many of them belong to the task.
        vision_layer: Hidden state of the tower that is used.
        projector: ``linear``, ``identity``, or ``mlp{n}x_gelu`` with ``n`` linear layers.
        spatial_merge: Patches along each side that are joined to one token.
        temporal_pool: Of a clip's frames: ``mean`` (paper), ``none``, or ``every-k`` with a number for k: the
            mean of every k frames.
        region_form: ``vitron``; or ``published``, for weights of the authors' release, whose places are
            pixels; ``published-mirrored`` also exchanges rows and columns of masks, as the release does.
        region_pooling: Of the first form. ``soft`` weighs a patch by the share of it that is covered; ``any``
            counts it whole.
        region_location: Whether regions carry a code of their place.
        mask_modules: Modules whose signals the mask head answers.
        mask_width: Channels of the mask head.
        mask_stride: Pixels of the tower's input per pixel of a mask; divides the patch size.
        conditions: For each module with a projection of signals to a text encoder's space: number of vectors
            (``num_vectors``), their ``width``, and the projection's ``form``, ``vitron`` or ``published``.
        image_size: Side of the square that pictures are fitted into.
        pixel_mean: Of the three channels, in 0..1.
        pixel_std: Of the three channels.
        num_frames: Of a longer clip, this many are shown.
        template: Name of the chat template.
    """

    model_type = "vitron"
    # the base has a property of classes here, which pyright cannot follow
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
    pixel_mean: tuple[float, ...] | list[float] = (0.481, 0.458, 0.408)
    pixel_std: tuple[float, ...] | list[float] = (0.269, 0.261, 0.276)
    num_frames: int = 8
    template: str = "chatml"
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
        """Signal tokens behind a call."""
        return len(self.signal_token_ids)

    def frames_kept(self, frames: int) -> int:
        """Return how many blocks of tokens a clip of so many shown frames becomes.

        Raises:
            ValueError: If ``temporal_pool`` is none of those known.
        """
        if self.temporal_pool == "mean":
            return 1
        if self.temporal_pool == "none":
            return frames
        word, _, number = self.temporal_pool.partition("-")
        if word != "every" or not number.isdecimal() or int(number) < 1:
            raise ValueError(
                f"temporal_pool must be mean, none or every-k with a number for k, got {self.temporal_pool!r}"
            )
        return -(-frames // int(number))

    def tokens_of(self, frames: int) -> int:
        """Return how many placeholders a picture, or a clip of so many shown frames, takes."""
        return self.frames_kept(frames) * (self.grid // self.spatial_merge) ** 2


def _sub_config(value: SubConfig, default: str) -> PretrainedConfig:
    if isinstance(value, PretrainedConfig):
        return value
    given = dict(value or {})
    return CONFIG_MAPPING[given.pop("model_type", default)](**given)
