# SPDX-License-Identifier: Apache-2.0
"""Settings of a model: prompt, guidance, schedule and extras."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from torch import Tensor

from pixelsmith.adapters.base import Condition
from pixelsmith.adapters.control import Control
from pixelsmith.config import SamplingConfig
from pixelsmith.io.upscaled import Upscaler


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchPlace:
    """The place of a patch in its image.

    Attributes:
        top: First row, pixels.
        left: First column, pixels.
        height: Height in pixels; with an image that wraps, a patch may run over the border.
        width: Width in pixels.
        size: Height and width of the whole image, pixels.
    """

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]

    @property
    def center(self) -> tuple[float, float]:
        """Row and column of the middle, as shares of the image in [0, 1)."""
        row, column = self.top + self.height / 2, self.left + self.width / 2
        return row / self.size[0] % 1, column / self.size[1] % 1


# the prompt of a patch: text, or embeddings
PatchPrompt = Callable[[PatchPlace], str | Condition]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions(SamplingConfig):
    """Settings of a pipeline, with all fields of :class:`pixelsmith.SamplingConfig`.

    Attributes:
        timesteps: Custom timesteps, instead of a number of inference steps.
        sigmas: Custom noise levels, instead of a number of inference steps.
        patch_prompt: Prompt of each patch, as a function of its place.
        controls: ControlNets, for SD and SDXL.
        ip_adapter_image: Images for IP-Adapters that the pipeline has loaded.
        ip_adapter_image_embeds: Embeddings of such images, in the form in which the pipeline takes them.
        attention_kwargs: Arguments of the attention processors, such as ``{"scale": 0.7}`` for LoRAs.
        upscaler: Network that enlarges the image before it is encoded; Lanczos if ``None``.
        name: Name of the model in the record of a job, if not the name that the pipeline was loaded by.

    Raises:
        ValueError: If a value is out of range.
    """

    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    patch_prompt: PatchPrompt | None = None
    controls: Sequence[Control] = ()
    ip_adapter_image: Any = None
    ip_adapter_image_embeds: Any = None
    attention_kwargs: Mapping[str, object] | None = None
    upscaler: Upscaler | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        SamplingConfig.__post_init__(self)
        if self.timesteps is not None and self.sigmas is not None:
            raise ValueError("timesteps and sigmas cannot both be given; leave one out")
        if self.patch_prompt is not None and self.patch_prompts != "whole":
            raise ValueError("patch_prompt and patch_prompts cannot both be given; leave one out")

    def changed(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the settings that are not at their default."""
        defaults = {field.name: field.default for field in fields(self)}
        found = {name: getattr(self, name) for name in names}
        return {name: value for name, value in found.items() if not _is_default(value, defaults[name])}


def _is_default(value: object, default: object) -> bool:
    """Whether a setting is the default; a text that was read from a file is equal and not the same object."""
    # arrays and tensors compare element by element, and are never a default
    return value is default or (isinstance(value, str | int | float) and value == default)


TEXT = (
    "negative_prompt",
    "prompt_2",
    "prompt_3",
    "negative_prompt_2",
    "negative_prompt_3",
    "clip_skip",
    "max_sequence_length",
)
SCHEDULE = ("timesteps", "sigmas")
IMAGES = ("ip_adapter_image", "ip_adapter_image_embeds")
SAMPLING = ("guidance_rescale", "true_cfg_scale")


def fingerprint(value: object) -> object:
    """Return JSON values that identify an input: tensors and images by their checksum."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Tensor():
            return zlib.crc32(value.detach().float().cpu().contiguous().numpy().tobytes())
        case Mapping():
            return {str(key): fingerprint(part) for key, part in value.items()}
        case list() | tuple():
            return [fingerprint(part) for part in value]
        case Condition():
            sides = (value.embeds, value.pooled, value.negative_embeds, value.negative_pooled)
            return [fingerprint(side) for side in sides]
        case _ if callable(value):
            return getattr(value, "__qualname__", type(value).__qualname__)
        case _:
            return zlib.crc32(np.ascontiguousarray(np.asarray(value)).tobytes())
