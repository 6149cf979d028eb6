# SPDX-License-Identifier: Apache-2.0
"""Configurations of the denoising loop, of the model and of the size; imports no torch."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

__all__ = [
    "SCHEDULERS",
    "DenoisingConfig",
    "JobConfig",
    "LoadingConfig",
    "SamplingConfig",
    "SizeConfig",
    "Slider",
    "check_slider",
    "parse_lora",
    "parse_size",
]

PlanKind = Literal["cover", "jitter", "grid"]
Mode = Literal["parallel", "official"]
Start = Literal["guidance", "noise"]
Fusion = Literal["auto", "guarded", "official", "off"]
Wrap = Literal["none", "vertical", "horizontal", "both"]
SliderMap = tuple[tuple[float, ...], ...]
Slider = int | float | Literal["auto"] | SliderMap
Conditioning = Literal["true", "official", "base", "none"]
Positions = Literal["patch", "canvas"]
PatchPrompts = Literal["whole", "auto"]
Fit = Literal["crop", "pad"]
Offload = Literal["none", "model", "sequential"]
ColourFix = Literal["none", "wavelet"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "plan": get_args(PlanKind),
    "mode": get_args(Mode),
    "start": get_args(Start),
    "fusion": get_args(Fusion),
    "wrap": get_args(Wrap),
    "conditioning": get_args(Conditioning),
    "positions": get_args(Positions),
    "patch_prompts": get_args(PatchPrompts),
    "fit": get_args(Fit),
    "offload": get_args(Offload),
    "colour_fix": get_args(ColourFix),
}
# these divide the work and do not change the result
_FREE = {"batch_size"}
_SIZE = re.compile(r"(\d+)(?:[x\u00d7](\d+))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoisingConfig:
    """Settings of the denoising loop, the same for every stage.

    Attributes:
        plan: Patches of a step: drawn at random until all is covered, as published ("cover"), a grid at a
            random offset, with fewer patches on large canvases ("jitter"), or a fixed grid ("grid").
        overlap: Least overlap of neighbouring patches of a grid in latents; a cover overlaps anyway.
        mode: "parallel" fuses the state at the beginning of a step, so that the order of patches cannot
            matter; "official" fuses patches that hold two noise levels, as the published code does.
        start: Start from the noised image as in the published code ("guidance") or from pure noise as in the
            paper ("noise").
        fusion: "guarded" keeps frequencies whose mean phase has no direction, "official" does not, "off"
            leaves the phases alone, "auto" follows the mode.
        fusion_weight: Weight of the guidance in the fused phases in [0, 1]; 0.5 as published.
        mask: Chess mask: half of the positions take the guidance after a guided step.
        average: Averaging of a patch into its neighbours in a band.
        band: Width of that band in latents; if not given 10 for patches of 128, and for others in proportion.
        overhang: Largest reach of a patch over the border of the canvas in latents, where it sees the canvas
            mirrored; if not given an eighth of the patch. With mode "official" and with ControlNets none.
        wrap: Sides that join their opposite: "horizontal" for panoramas, "both" for textures.
        colour_fix: "wavelet" takes all that is coarser than about 13 pixels from the enlarged image once the
            result is decoded, so that its colours stay; not where top and bottom join.
        grain_threshold: Strength in levels of 255 below which detail that the enlarged image lacks counts as
            grain and is left out; 0 keeps all. If not given 2.5, and 0 with mode "official".
    """

    plan: PlanKind = "cover"
    overlap: int = 0
    mode: Mode = "parallel"
    start: Start = "guidance"
    fusion: Fusion = "auto"
    fusion_weight: float = 0.5
    mask: bool = True
    average: bool = True
    band: int | None = None
    overhang: int | None = None
    wrap: Wrap = "none"
    colour_fix: ColourFix = "none"
    grain_threshold: float | None = None

    def __post_init__(self) -> None:
        _check_choices(self, ("plan", "mode", "start", "fusion", "wrap", "colour_fix"))
        if self.colour_fix != "none" and self.wrap in ("vertical", "both"):
            raise ValueError(f"colour_fix must be 'none' with wrap={self.wrap!r}, got {self.colour_fix!r}")
        if self.overlap < 0:
            raise ValueError(f"overlap must not be negative, got {self.overlap}")
        if not 0 <= (self.grain_threshold or 0) < math.inf:
            raise ValueError(f"grain_threshold must be a finite number from 0, got {self.grain_threshold}")
        for name in ("band", "overhang"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.mode == "official" and self.overhang:
            raise ValueError(f"overhang must be 0 with mode='official', got {self.overhang}")
        if not 0 <= self.fusion_weight <= 1:
            raise ValueError(f"fusion_weight must lie in [0, 1], got {self.fusion_weight}")
        if self.mode == "official" and self.fusion_weight != 0.5:
            raise ValueError(f"fusion_weight must be 0.5 with mode='official', got {self.fusion_weight}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig(DenoisingConfig):
    """All settings of the denoising loop; besides model, prompt and sizes they decide the result.

    Attributes:
        patch: Side of a patch in latents; the side that the model was trained for.
        patch_multiple: Divisor of the sides of patches on canvases smaller than ``patch``.
        seed: Random seed of noise, patches and masks, in [0, 2**64).
        slider: Guided steps: a whole number, a fraction of all steps (a ``float`` in [0, 1]), ``"auto"`` by
            the enlargement of the stage, or a map of fractions or of whole numbers, given as rows, which is
            stretched over the canvas.
        batch_size: Patches in one pass through the model; does not change the result.

    Example:
        >>> JobConfig(patch=128, slider=0.5).seed
        0
    """

    patch: int
    patch_multiple: int = 8
    seed: int = 0
    slider: Slider = "auto"
    batch_size: int = 1

    def __post_init__(self) -> None:
        DenoisingConfig.__post_init__(self)
        for name in ("patch", "patch_multiple", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.patch % self.patch_multiple:
            raise ValueError(
                f"patch_multiple must divide patch, got {self.patch_multiple} and patch={self.patch}"
            )
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must lie in [0, 2**64), got {self.seed}")
        if self.overlap >= self.patch:
            raise ValueError(f"overlap must lie in [0, patch), got {self.overlap} with patch={self.patch}")
        check_slider(self.slider)
        if self.mode == "official" and isinstance(self.slider, tuple):
            raise ValueError("slider must be one number with mode='official'; maps need 'parallel'")

    def band_of(self, patch: int) -> int:
        """Return the width of the band in patches of a side; 0 without averages."""
        if not self.average:
            return 0
        return round(patch * 10 / 128) if self.band is None else self.band

    def overhang_of(self, patch: int) -> int:
        """Return the largest reach over the border of patches of a side; at most a quarter of the side."""
        if self.mode == "official":
            return 0
        return min(patch // 4, patch // 8 if self.overhang is None else self.overhang)

    @property
    def grain(self) -> float:
        """Levels of 255 below which detail is grain; 0 for none."""
        if self.grain_threshold is None:
            return 0.0 if self.mode == "official" else 2.5
        return self.grain_threshold

    @property
    def wraps(self) -> tuple[bool, bool]:
        """Whether rows (top and bottom) and columns (left and right) join."""
        return self.wrap in ("vertical", "both"), self.wrap in ("horizontal", "both")

    def to_dict(self) -> dict[str, object]:
        """Return plain values, fit for JSON."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> JobConfig:
        """Return the configuration that :meth:`to_dict` described.

        Raises:
            ValueError: If a key is unknown or missing, or a value is out of range.
        """
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"unknown settings: {', '.join(unknown)}")
        if "patch" not in values:
            raise ValueError("patch is missing from the settings")
        rows = values.get("slider")
        given = dict(values)
        if isinstance(rows, list):
            given["slider"] = tuple(tuple(row) for row in rows)
        return cls(**given)  # pyright: ignore[reportArgumentType]  # checked on construction

    def digest(self) -> str:
        """Return a hash of all that decides the result, 64 hexadecimal digits."""
        kept = {name: value for name, value in self.to_dict().items() if name not in _FREE}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """How the model is prompted and sampled; ``None`` is the default of the model.

    Attributes:
        negative_prompt: Negative prompt.
        prompt_2: Prompt of the second text encoder.
        prompt_3: Prompt of the third text encoder.
        negative_prompt_2: Negative prompt of the second text encoder.
        negative_prompt_3: Negative prompt of the third text encoder.
        clip_skip: Number of final layers of the text encoder that are skipped.
        max_sequence_length: Maximum number of tokens of a prompt.
        num_inference_steps: Number of inference steps.
        guidance_scale: Guidance scale; FLUX takes it as an input.
        guidance_rescale: Guidance rescale factor in [0, 1] (arXiv 2305.08891, Sec. 3.4).
        true_cfg_scale: Scale of classifier-free guidance of FLUX with a negative prompt.
        conditioning: Size and crop conditioning of SDXL: size of the whole image and place of the patch
            ("true"), the same with the column twice, as published ("official"), the native size and the place
            in the image shrunk to it ("base"), or an image of its own ("none").
        positions: Origin of the position ids of FLUX: the patch or the canvas.
        patch: Side of a patch in latents; the side that the model was trained for if not given.
        patch_prompts: Prompt of a patch: the whole one, or only those of its phrases that the network attends
            to in that part of the image ("auto"), for SD and SDXL in one process.

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
    guidance_scale: float | None = None
    guidance_rescale: float = 0.0
    true_cfg_scale: float | None = None
    conditioning: Conditioning = "true"
    positions: Positions = "patch"
    patch: int | None = None
    patch_prompts: PatchPrompts = "whole"

    def __post_init__(self) -> None:
        _check_choices(self, ("conditioning", "positions", "patch_prompts"))
        if self.num_inference_steps is not None and self.num_inference_steps < 1:
            raise ValueError(f"num_inference_steps must be at least 1, got {self.num_inference_steps}")
        if self.guidance_scale is not None and not math.isfinite(self.guidance_scale):
            raise ValueError(f"guidance_scale must be a finite number, got {self.guidance_scale}")
        if not 0 <= self.guidance_rescale <= 1:
            raise ValueError(f"guidance_rescale must lie in [0, 1], got {self.guidance_rescale}")
        if self.clip_skip is not None and self.clip_skip < 0:
            raise ValueError(f"clip_skip must not be negative, got {self.clip_skip}")
        if self.patch is not None and self.patch < 1:
            raise ValueError(f"patch must be at least 1 latent wide, got {self.patch}")


SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "flow-euler": "FlowMatchEulerDiscreteScheduler",
}
"""Schedulers with a closed form: short name, and class of diffusers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadingConfig:
    """What is loaded besides a model, and how.

    Attributes:
        variant: Variant of the weight files, such as fp16.
        config: Folder with the configuration of a model that is one .safetensors file.
        scheduler: Scheduler instead of the model's own: ddim, euler, dpm++ or flow-euler.
        lora: LoRA, a .safetensors file, folder or hub id, with its weight behind a colon if that is not 1;
            may be repeated.
        controlnet: ControlNet, folder or hub id, for the control image.
        control_image: Image that the ControlNet follows; for an upscale the image itself, as tile ControlNets
            take it, if not given.
        control_scale: Weight of the ControlNet.
        control_mode: Mode of a ControlNet that has several (union), for SDXL and FLUX.
        upscaler: Network that enlarges the image before it is encoded, instead of Lanczos, a .safetensors
            file of any architecture that spandrel knows.
        offload: Networks that wait in host memory: none; all but the one in use (model); or all but the layer
            in use (sequential), which is slow.

    Raises:
        ValueError: If a value is out of range, or an option lacks the one that it belongs to.
    """

    variant: str | None = None
    config: str | None = None
    scheduler: str | None = None
    lora: tuple[str, ...] | None = None
    controlnet: str | None = None
    control_image: str | None = None
    control_scale: float = 1.0
    control_mode: int | None = None
    upscaler: str | None = None
    offload: Offload = "none"

    def __post_init__(self) -> None:
        _check_choices(self, ("offload",))
        if self.scheduler is not None and self.scheduler not in (*SCHEDULERS, *SCHEDULERS.values()):
            raise ValueError(f"scheduler must be one of {', '.join(SCHEDULERS)}, got {self.scheduler!r}")
        for text in self.lora or ():
            parse_lora(text)
        if self.control_image is not None and self.controlnet is None:
            raise ValueError("control_image needs a controlnet, which is not given")
        if self.control_mode is not None and self.controlnet is None:
            raise ValueError("control_mode needs a controlnet, which is not given")
        if not math.isfinite(self.control_scale):
            raise ValueError(f"control_scale must be a finite number, got {self.control_scale}")


def parse_lora(text: str) -> tuple[str, float]:
    """Parse a LoRA with its weight, ``PATH`` or ``PATH:WEIGHT``.

    Example:
        >>> parse_lora("style.safetensors:0.8")
        ('style.safetensors', 0.8)

    Raises:
        ValueError: If the weight is not a finite number.
    """
    path, colon, weight = text.rpartition(":")
    if not colon or "/" in weight or "\\" in weight:  # a drive, or no weight
        return text, 1.0
    try:
        value = float(weight)
    except ValueError as error:
        raise ValueError(f"a LoRA is PATH or PATH:WEIGHT, got {text!r}") from error
    if not path or not math.isfinite(value):
        raise ValueError(f"a LoRA is PATH or PATH:WEIGHT, got {text!r}")
    return path, value


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeConfig:
    """Size of the result, and the sizes on the way to it.

    In ``size`` and ``via`` one number is the longer side; the other follows the image, or is the same.
    Without any size the result is twice as large as the image, or as the native size of the model.

    Attributes:
        size: Size of the result, WIDTHxHEIGHT or one number for the longer side, in pixels.
        scale: Enlargement of the sides of the image, or of the native size of the model.
        height: Height of the result in pixels; the width follows if not given.
        width: Width of the result in pixels; the height follows if not given.
        stages: Number of stages, all of which enlarge by the same factor.
        via: Sizes on the way, each a stage, instead of a number of stages.
        fit: How an image comes to a size of another shape: crop keeps its middle, pad adds white. Without it
            another shape is refused.

    Raises:
        ValueError: If a size cannot be read, or two options contradict each other.
    """

    size: str | None = None
    scale: float | None = None
    height: int | None = None
    width: int | None = None
    stages: int = 1
    via: tuple[str, ...] | None = None
    fit: Fit | None = None

    def __post_init__(self) -> None:
        if self.fit is not None:
            _check_choices(self, ("fit",))
        given = [name for name in ("size", "scale") if getattr(self, name) is not None]
        if self.height is not None or self.width is not None:
            given.append("height or width")
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} cannot both be given; leave one out")
        if self.scale is not None and not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be above 0, got {self.scale}")
        if self.stages < 1:
            raise ValueError(f"stages must be at least 1, got {self.stages}")
        if self.via and self.stages != 1:
            raise ValueError("via and stages cannot both be given; leave one out")
        for text in (self.size, *(self.via or ())):
            if text is not None:
                parse_size(text)


def parse_size(text: str) -> tuple[int, int | None]:
    """Parse ``WIDTHxHEIGHT``, or one number.

    Returns:
        Width and height in pixels; the height is ``None`` for one number.

    Raises:
        ValueError: If it is neither, or a side is 0.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None or int(found[1]) < 1 or (found[2] is not None and int(found[2]) < 1):
        raise ValueError(f"a size is WIDTHxHEIGHT or one number of pixels, as 4096x2048, got {text!r}")
    return int(found[1]), None if found[2] is None else int(found[2])


def _check_choices(config: object, names: tuple[str, ...]) -> None:
    for name in names:
        value, choices = getattr(config, name), _CHOICES[name]
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_slider(slider: Slider) -> None:
    """Refuse a slider out of range.

    Raises:
        TypeError: If it is not a number, map or "auto".
        ValueError: If a number is out of range, or a map is not a rectangle of one kind.
    """
    if isinstance(slider, tuple):
        if not slider or not slider[0] or len({len(row) for row in slider}) > 1:
            raise ValueError("slider map must be a rectangle with at least one value")
        for value in (value for row in slider for value in row):
            _check_amount(value)
        if len({isinstance(value, float) for row in slider for value in row}) > 1:
            raise ValueError("slider map must hold fractions only or whole numbers only")
    elif slider != "auto":
        _check_amount(slider)


def _check_amount(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"slider must be a whole number, a fraction, 'auto' or a map, got {value!r}")
    if value < 0 or (isinstance(value, float) and not value <= 1):
        raise ValueError(f"slider must be a fraction in [0, 1] or a whole number from 0, got {value!r}")
