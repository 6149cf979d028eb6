# SPDX-License-Identifier: Apache-2.0
"""The methods of enlargement that the study compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pixelsmith.config import Conditioning, PatchPrompts

from recipes.tiny_sdxl.assembly import GUIDANCE

Way = Literal["pixelsmith", "lanczos", "autoencoder", "direct", "scene"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method with its settings.

    Attributes:
        name: Name in tables and files.
        scale: Enlargement of the sides of the base image.
        way: Method: ``"lanczos"`` only resizes, ``"autoencoder"`` encodes and decodes that, ``"direct"``
            samples the large size at once, ``"scene"`` is the drawing that the prompt describes, the result
            of a perfect model.
        stages: Number of stages.
        settings: Fields of :class:`pixelsmith.config.JobConfig` that are not at their default.
        conditioning: Size and crop conditioning of a patch.
        patch_prompts: Prompt of a patch.
        guidance: Guidance scale; base images always have the same.
    """

    name: str
    scale: int
    way: Way = "pixelsmith"
    stages: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    conditioning: Conditioning = "true"
    patch_prompts: PatchPrompts = "whole"
    guidance: float = GUIDANCE

    @property
    def key(self) -> str:
        """Unique name of the row."""
        return f"{self.scale}x {self.name}"


def _baselines(scale: int) -> list[Row]:
    return [
        Row(name="drawn scene", scale=scale, way="scene"),
        Row(name="Lanczos", scale=scale, way="lanczos"),
        Row(name="autoencoder alone", scale=scale, way="autoencoder"),
        Row(name="direct sampling", scale=scale, way="direct"),
    ]


# what the gate reads comes first
ROWS: tuple[Row, ...] = (
    *_baselines(4),
    Row(name="pixelsmith, one hop", scale=4),
    Row(name="slider 0.9, one hop", scale=4, settings={"slider": 0.9}),
    Row(name="slider 1, one hop", scale=4, settings={"slider": 1.0}),
    Row(name="slider 0.8, one hop", scale=4, settings={"slider": 0.8}),
    Row(name="pixelsmith, cascade", scale=4, stages=2),
    *_baselines(2),
    Row(name="pixelsmith", scale=2),
    Row(name="slider 1", scale=2, settings={"slider": 1.0}),
    Row(name="slider 0.8", scale=2, settings={"slider": 0.8}),
    Row(name="slider 0.6", scale=2, settings={"slider": 0.6}),
    Row(name="slider 0.4", scale=2, settings={"slider": 0.4}),
    Row(name="slider 0.4, patch prompts", scale=2, settings={"slider": 0.4}, patch_prompts="auto"),
    Row(name="no overhang", scale=2, settings={"overhang": 0}),
    Row(name="no fusion", scale=2, settings={"fusion": "off"}),
    Row(name="no mask", scale=2, settings={"mask": False}),
    Row(name="neither", scale=2, settings={"fusion": "off", "mask": False}),
    Row(name="no averaging", scale=2, settings={"average": False}),
    Row(name="start from noise", scale=2, settings={"start": "noise"}),
    Row(name="jittered grid", scale=2, settings={"plan": "jitter"}),
    Row(name="official order", scale=2, settings={"mode": "official"}),
    Row(name="conditioning official", scale=2, conditioning="official"),
    Row(name="conditioning base", scale=2, conditioning="base"),
    Row(name="conditioning none", scale=2, conditioning="none"),
)
