# SPDX-License-Identifier: Apache-2.0
"""ControlNets, whose images are cropped per patch."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixelsmith.store.canvas import Canvas
from pixelsmith.store.regions import pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A ControlNet and its image.

    The image is laid over the whole canvas and may be of any size: a patch gets its part, resized by
    Lanczos to the pixels of the patch.

    Attributes:
        model: The ControlNet, of the family of the pipeline; one of several modes (union) for SDXL and FLUX.
        image: Control image, RGB.
        scale: Weight of the ControlNet's features.
        start: Share of the steps after which it starts.
        end: Share of the steps after which it ends.
        mode: Mode of a ControlNet that has several, such as that of tiles.

    Raises:
        ValueError: If ``start`` and ``end`` are not an interval in [0, 1], or the mode is missing or none of
            the ControlNet's.
    """

    model: Any
    image: Image.Image
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(
                f"start and end of a control must be 0 <= start < end <= 1, got {self.start} and {self.end}"
            )
        kinds = self.num_kinds
        if kinds and (self.mode is None or not 0 <= self.mode < kinds):
            raise ValueError(f"the mode of this control must lie in [0, {kinds}), got {self.mode}")
        if self.image.mode != "RGB":
            object.__setattr__(self, "image", self.image.convert("RGB"))

    @property
    def num_kinds(self) -> int:
        """Number of modes of a union ControlNet of SDXL; 0 for others."""
        return int(getattr(getattr(self.model, "config", None), "num_control_type", 0))

    def is_on(self, step: int, num_steps: int) -> bool:
        """Return whether it is used in a step."""
        return self.start <= step / num_steps and (step + 1) / num_steps <= self.end

    def crop(
        self,
        origins: Sequence[tuple[int, int]],
        patch: tuple[int, int],
        size: tuple[int, int],
        factor: int,
    ) -> Tensor:
        """Return the parts of some patches, ``(B, 3, h, w)`` fp32 in [0, 1].

        Args:
            origins: Row and column of each patch's first latent.
            patch: Height and width of a patch in latents.
            size: Height and width of the whole canvas in pixels.
            factor: Pixels per latent and side.
        """
        height, width = patch[0] * factor, patch[1] * factor
        parts = [self._part(row * factor, column * factor, height, width, size) for row, column in origins]
        return torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2).float() / 255

    def _part(self, top: int, left: int, height: int, width: int, size: tuple[int, int]) -> np.ndarray:
        out = np.empty((height, width, 3), dtype=np.uint8)
        # pixels of the image per pixel of the canvas
        across, down = self.image.width / size[1], self.image.height / size[0]
        for to_rows, rows in pieces(top, height, size[0]):
            for to_columns, columns in pieces(left, width, size[1]):
                box = (columns.start * across, rows.start * down, columns.stop * across, rows.stop * down)
                shape = (columns.stop - columns.start, rows.stop - rows.start)
                part = self.image.resize(shape, Image.Resampling.LANCZOS, box=box)
                out[to_rows, to_columns] = np.asarray(part)
        return out

    def describe(self) -> dict[str, object]:
        """Return its settings, as JSON values."""
        return {
            "model": type(self.model).__name__,
            "image": zlib.crc32(self.image.tobytes()),
            "scale": self.scale,
            "start": self.start,
            "end": self.end,
            "mode": self.mode,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentControls:
    """ControlNets that take their image as latents, of SD3 and FLUX.

    Attributes:
        each: ControlNets, whose features are added.
        latents: Function that returns the latents of the image of a ControlNet over the whole canvas, scaled
            for the network.
    """

    each: Sequence[Control]
    latents: Callable[[Control], Canvas]

    def features(
        self,
        step: int,
        num_steps: int,
        origins: Sequence[tuple[int, int]],
        patch: tuple[int, int],
        call: Callable[[Control, Tensor], Sequence[Sequence[Tensor] | None]],
    ) -> list[list[Tensor] | None]:
        """Return the features of all ControlNets that are on in a step, added up; none if there are none.

        Args:
            step: Current step.
            num_steps: Number of steps.
            origins: Row and column of each patch's first latent.
            patch: Height and width of a patch in latents.
            call: Function that calls a ControlNet with the latents of its image, ``(B, C, h, w)``, and
                returns the features of each kind of block.
        """
        total: list[list[Tensor] | None] = []
        for control in self.each:
            if not control.is_on(step, num_steps):
                continue
            canvas = self.latents(control)
            found = call(control, torch.stack([canvas.read(*place, *patch) for place in origins]))
            total = [_add(a, b) for a, b in zip(total or [None] * len(found), found, strict=True)]
        return total


def _add(first: Sequence[Tensor] | None, second: Sequence[Tensor] | None) -> list[Tensor] | None:
    if first is None or second is None:
        return None if first is second else list(first or second or ())
    return [a + b for a, b in zip(first, second, strict=True)]
