# SPDX-License-Identifier: Apache-2.0
"""Settings of a model: prompt, guidance, schedule and extras."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_args

import numpy as np
from torch import Tensor

from pixelsmith.adapters.base import Condition
from pixelsmith.adapters.conditioning import Policy
from pixelsmith.adapters.control import Control
from pixelsmith.adapters.flux import Positions


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchPlace:
    """Where a patch lies in its picture.

    Attributes:
        top: First row, pixels.
        left: First column, pixels.
        height: Pixels; with a picture that wraps, a patch may run over the border.
        width: Pixels.
        size: Height and width of the whole picture, pixels.
    """

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]

    @property
    def center(self) -> tuple[float, float]:
        """Row and column of the middle, as shares of the picture in [0, 1)."""
        row, column = self.top + self.height / 2, self.left + self.width / 2
        return row / self.size[0] % 1, column / self.size[1] % 1


# the prompt of a patch: text, or embeddings
PatchPrompt = Callable[[PatchPlace], str | Condition]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How a pipeline is used. ``None`` stands for the default of the pipeline.

    Attributes:
        negative_prompt: What guidance leads away from.
        prompt_2: For the second text encoder.
        prompt_3: For the third.
        negative_prompt_2: For the second text encoder.
        negative_prompt_3: For the third.
        clip_skip: Layers of the text encoder that are left out.
        max_sequence_length: Tokens of a long prompt.
        num_inference_steps: Steps.
        timesteps: One's own, instead of a number of steps.
        sigmas: Noise levels of one's own, likewise.
        guidance_scale: Weight of the prompt. FLUX is told it as a number.
        guidance_rescale: See :class:`pixelsmith.adapters.base.Guidance`.
        true_cfg_scale: Classifier-free guidance of FLUX, with a negative prompt.
        conditioning: What SDXL is told about the place of a patch, see
            :class:`pixelsmith.adapters.conditioning.Placement`; other models are told nothing.
        positions: Where FLUX counts the positions of a patch from.
        patch_prompt: The prompt of each patch.
        controls: ControlNets, for SD and SDXL.
        ip_adapter_image: Pictures for IP-Adapters that the pipeline has loaded.
        ip_adapter_image_embeds: Their embeddings, in the form in which the pipeline takes them.
        attention_kwargs: For the attention processors, such as ``{"scale": 0.7}`` for LoRAs.
        patch: Cells per side of a patch, if not the size that the model was trained at.
        name: What a job records as the model, if not the name that the pipeline was loaded by.

    Raises:
        ValueError: If a value is out of range.
    """

    negative_prompt: str | None = None
    prompt_2: str | None = None
    prompt_3: str | None = None
    negative_prompt_2: str | None = None
    negative_prompt_3: str | None = None
    clip_skip: int | None = None
    max_sequence_length: int | None = None
    num_inference_steps: int | None = None
    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    guidance_scale: float | None = None
    guidance_rescale: float = 0.0
    true_cfg_scale: float | None = None
    conditioning: Policy = "true"
    positions: Positions = "patch"
    patch_prompt: PatchPrompt | None = None
    controls: Sequence[Control] = ()
    ip_adapter_image: Any = None
    ip_adapter_image_embeds: Any = None
    attention_kwargs: Mapping[str, object] | None = None
    patch: int | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        for name, choices in (("conditioning", get_args(Policy)), ("positions", get_args(Positions))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.num_inference_steps is not None and self.num_inference_steps < 1:
            raise ValueError(f"num_inference_steps must be at least 1, got {self.num_inference_steps}")
        if self.guidance_scale is not None and not math.isfinite(self.guidance_scale):
            raise ValueError(f"guidance_scale must be a finite number, got {self.guidance_scale}")
        if not 0 <= self.guidance_rescale <= 1:
            raise ValueError(f"guidance_rescale must lie in [0, 1], got {self.guidance_rescale}")
        if self.timesteps is not None and self.sigmas is not None:
            raise ValueError("timesteps and sigmas cannot both be given; leave one out")
        if self.patch is not None and self.patch < 1:
            raise ValueError(f"patch must be at least 1 cell, got {self.patch}")

    def changed(self, names: Sequence[str]) -> dict[str, Any]:
        """Return those of some settings that are not at their default."""
        defaults = {field.name: field.default for field in fields(self)}
        found = {name: getattr(self, name) for name in names}
        return {name: value for name, value in found.items() if not _is_default(value, defaults[name])}


def _is_default(value: object, default: object) -> bool:
    """Whether a setting is the default; a text that was read from a file is equal and not the same object."""
    # arrays and tensors have no single truth of being equal, and are never a default
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
    """Return JSON values that tell two inputs apart: tensors and pictures by their checksum."""
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
