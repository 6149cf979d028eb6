# SPDX-License-Identifier: Apache-2.0
"""The settings that decide the result of a job."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from pixelsmith.config import Fit, JobConfig, Slider
from pixelsmith.core.model import JobModel
from pixelsmith.core.plan import patch_side
from pixelsmith.core.steps import StepPlan, plan_steps
from pixelsmith.io.margins import Margin
from pixelsmith.io.tiles import MARGIN, Tiling
from pixelsmith.io.vae import TiledVAE, default_tiling

__all__ = ["JobSpec", "Size", "check_sizes", "check_spec", "margin_of", "sized"]

_LONGEST = 1_000_000  # pixels; a larger size is a mistake, and even planning it takes hours
CanvasType = Literal["float32", "float16"]
Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """Everything that decides the result of a job, besides the model with its prompt.

    Attributes:
        sizes: Height and width of the image after each stage, in pixels; the last is the result. An empty
            sequence makes the first image the result.
        config: Settings of the denoising loop.
        source_size: Height and width of the first image: the given one, or the base image that the model
            generates.
        source: File of the image to enlarge; ``None`` for an image in memory or a base image.
        source_digest: SHA-256 of that file, or of the pixels in memory; ``None`` for a base image.
        sliders: Slider of each stage, instead of that of the configuration.
        tiling: Tiles of the autoencoder; chosen by its configuration if ``None``.
        canvas: Dtype of the latents between steps, "float32" or "float16".
        max_pixels: Limit of the pixels of the source; checked in the header before anything is decoded.
        fit: How an image of another shape comes to ``source_size``: ``"crop"`` keeps its middle, ``"pad"``
            adds white; ``None`` if it has the size.
    """

    sizes: tuple[Size, ...]
    config: JobConfig
    source_size: Size
    source: Path | None = None
    source_digest: str | None = None
    sliders: tuple[Slider, ...] = ()
    tiling: Tiling | None = None
    canvas: CanvasType = "float32"
    max_pixels: int = 100_000_000
    fit: Fit | None = None

    def __post_init__(self) -> None:
        if self.sliders and len(self.sliders) != len(self.sizes):
            raise ValueError(
                f"there must be one slider, or one for each of the {len(self.sizes)} stages, "
                f"got {len(self.sliders)}"
            )
        for number in range(len(self.sizes)):
            self.stage_config(number)  # refuses wrong sliders
        if self.canvas not in get_args(CanvasType):
            raise ValueError(f"canvas must be 'float32' or 'float16', got {self.canvas!r}")
        if self.source is not None and self.source_digest is None:
            raise ValueError("source and source_digest must be given together")

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the latents between steps."""
        return torch.float16 if self.canvas == "float16" else torch.float32

    @property
    def is_given(self) -> bool:
        """Whether the first image is given, not generated."""
        return self.source_digest is not None

    @property
    def size(self) -> Size:
        """Height and width of the result in pixels."""
        return self.sizes[-1] if self.sizes else self.source_size

    def stage_config(self, number: int) -> JobConfig:
        """Return the settings of a stage."""
        return replace(self.config, slider=self.sliders[number]) if self.sliders else self.config

    def scale(self, number: int) -> float:
        """Return the enlargement of the sides up to a stage, which ``slider="auto"`` reads."""
        height, width = self.sizes[number]
        return math.sqrt(height * width / (self.source_size[0] * self.source_size[1]))

    def to_dict(self) -> dict[str, object]:
        """Return plain values, fit for JSON."""
        return {
            "sizes": [list(size) for size in self.sizes],
            "config": self.config.to_dict(),
            "source_size": list(self.source_size),
            "source": None if self.source is None else str(self.source),
            "source_digest": self.source_digest,
            "sliders": [_plain(slider) for slider in self.sliders],
            "tiling": None if self.tiling is None else asdict(self.tiling),
            "canvas": self.canvas,
            "max_pixels": self.max_pixels,
            "fit": self.fit,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> JobSpec:
        """Return the spec that :meth:`to_dict` described.

        Raises:
            ValueError: If a key is unknown or missing, or a value out of range.
        """
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            wrong = sorted(names.symmetric_difference(values))
            raise ValueError(f"settings are unknown or missing: {', '.join(wrong)}")
        return cls(
            sizes=tuple((height, width) for height, width in values["sizes"]),
            config=JobConfig.from_dict(values["config"]),
            source_size=(values["source_size"][0], values["source_size"][1]),
            source=None if values["source"] is None else Path(values["source"]),
            source_digest=values["source_digest"],
            sliders=tuple(_slider(each) for each in values["sliders"]),
            tiling=None if values["tiling"] is None else Tiling(**values["tiling"]),
            canvas=values["canvas"],
            max_pixels=values["max_pixels"],
            fit=values["fit"],
        )

    def identity(self, model: JobModel) -> dict[str, object]:
        """Return the content of ``job.json``: all that decides the bytes of the result."""
        kept = self.to_dict()
        for name in ("source", "max_pixels"):
            del kept[name]
        kept["config"] = {**self.config.to_dict(), "batch_size": None}  # free to change
        kept["tiling"] = asdict(self.tiling_of(model))
        return {"format": 1, "model": model.describe(), "vae_scale_factor": model.vae_scale_factor, **kept}

    def tiling_of(self, model: JobModel) -> Tiling:
        """Return the tiles for the autoencoder of a model."""
        return self.tiling or default_tiling(model.vae)


def sized(model: JobModel, size: Size, config: JobConfig) -> tuple[Size, Size]:
    """Return the sizes of the canvas of a stage and of its patches, both in latents."""
    height, width = (side // model.vae_scale_factor for side in size)
    return (height, width), (patch_side(height, config), patch_side(width, config))


def margin_of(config: JobConfig, vae_scale_factor: int) -> Margin:
    """Return the margin of the canvases of a stage; none where the published code is followed."""
    return Margin(0 if config.mode == "official" else MARGIN, vae_scale_factor, config.wraps)


def check_spec(model: JobModel, spec: JobSpec) -> list[StepPlan]:
    """Check a job against its model before the first call of the model.

    Args:
        model: The model.
        spec: Settings of the job.

    Returns:
        The steps of each stage.

    Raises:
        TypeError: If the model has no autoencoder.
        ValueError: If a size, the slider, the scheduler or the autoencoder does not fit.
    """
    check_sizes(model, spec)
    plans: list[StepPlan] = []
    for number, size in enumerate(spec.sizes):
        config = spec.stage_config(number)
        denoiser = model.denoiser(size, sized(model, size, config)[1])
        plans.append(plan_steps(config, denoiser.num_steps, scale=spec.scale(number)))
    return plans


def check_sizes(model: JobModel, spec: JobSpec) -> None:
    """Check the sizes of a job against the autoencoder and the patches of its model.

    Raises:
        TypeError: If the model has no autoencoder.
        ValueError: If a size does not fit, or the autoencoder is not that of the model.
    """
    vae = TiledVAE(model.vae, spec.tiling_of(model) if model.vae is not None else None)
    factor = model.vae_scale_factor
    if (vae.latent_channels, vae.factor) != (model.channels, factor):
        raise ValueError(
            f"the vae must make {model.channels} channels per {factor} x {factor} pixels as the model has "
            f"them, makes {vae.latent_channels} per {vae.factor} x {vae.factor}"
        )
    for size in spec.sizes if spec.is_given else (spec.source_size, *spec.sizes):
        if max(size) > _LONGEST:
            raise ValueError(
                f"height and width must be at most {_LONGEST} pixels, got height {size[0]} and width "
                f"{size[1]}"
            )
        vae.size(*size)
    if not spec.is_given:
        if any(spec.config.wraps):  # denoised in patches, too
            sized(model, spec.source_size, spec.config)
        elif (check := getattr(model, "check_base_size", None)) is not None:
            check(spec.source_size)
    for number, size in enumerate(spec.sizes):
        sized(model, size, spec.stage_config(number))


def _plain(slider: Slider) -> object:
    return [list(row) for row in slider] if isinstance(slider, tuple) else slider


def _slider(value: Any) -> Slider:
    return tuple(tuple(row) for row in value) if isinstance(value, list) else value
