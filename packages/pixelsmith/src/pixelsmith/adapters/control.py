# SPDX-License-Identifier: Apache-2.0
"""ControlNets, whose images are cropped per patch."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixelsmith.store.regions import pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A ControlNet and its image.

    The image is laid over the whole canvas and may be of any size: a patch gets its part, resized by
    Lanczos to the pixels of the patch.

    Attributes:
        model: The ControlNet; for SD and SDXL.
        image: Control image, RGB.
        scale: Weight of the ControlNet's features.
        start: Share of the steps after which it starts.
        end: Share of the steps after which it ends.

    Raises:
        ValueError: If ``start`` and ``end`` are not an interval in [0, 1].
    """

    model: Any
    image: Image.Image
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(
                f"start and end of a control must be 0 <= start < end <= 1, got {self.start} and {self.end}"
            )
        if self.image.mode != "RGB":
            object.__setattr__(self, "image", self.image.convert("RGB"))

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
        }
