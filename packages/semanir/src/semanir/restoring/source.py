# SPDX-License-Identifier: Apache-2.0
"""An image on its way into a network and out again, a few rows at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Result", "Source", "estimate_noise"]

_FULL_SCALE: dict[str, float] = {
    "uint8": 255.0,
    "uint16": 65535.0,
    "float16": 1.0,
    "float32": 1.0,
    "float64": 1.0,
}
_CHECKED_ROWS = 256
_REACH = 3  # rows that bicubic resizing reads beyond those it writes


class Source:
    """An image whose parts become tensors when they are needed; it may be a memory-mapped file.

    Args:
        image: ``(H, W)`` or ``(H, W, C)`` with ``C`` of 1 to 4, the second or fourth being transparency;
            uint8, uint16, or floating and finite, nominally in [0, 1].

    Raises:
        TypeError: If the dtype is another.
        ValueError: If the shape is another, or a number is not finite.
    """

    def __init__(self, image: NDArray[Any]) -> None:
        if image.dtype.name not in _FULL_SCALE or not image.dtype.isnative:
            raise TypeError(f"image must be uint8, uint16 or floating, got {image.dtype}")
        if image.ndim not in (2, 3) or 0 in image.shape or image.shape[2:] > (4,):
            raise ValueError(f"image must be (H, W) or (H, W, C) with C of 1 to 4, got shape {image.shape}")
        if image.dtype.kind == "f":
            for top in range(0, len(image), _CHECKED_ROWS):
                if not np.isfinite(image[top : top + _CHECKED_ROWS]).all():
                    raise ValueError("image must be finite, got NaN or infinity")
        self.shape, self.dtype = image.shape, image.dtype
        self.pixels = image if image.ndim == 3 else image[..., None]
        self.full_scale = _FULL_SCALE[image.dtype.name]
        self.height, self.width, channels = self.pixels.shape
        self.has_alpha = channels in (2, 4)
        self.channels = channels - self.has_alpha

    def colour(self, top: int, bottom: int, left: int = 0, right: int | None = None) -> Tensor:
        """Return the colours of a part, ``(1 or 3, h, w)``, fp32, nominally in [0, 1]."""
        return self._planes(self.pixels[top:bottom, left:right, : self.channels])

    def alpha(self, top: int, bottom: int, scale: int) -> Tensor:
        """Return rows of the transparency of the result, ``(0 or 1, h, w)``, fp32 in [0, 1].

        Args:
            top: First row of the result.
            bottom: Row behind the last.
            scale: Pixels of the result per pixel and side.
        """
        planes = self.pixels[..., self.channels :]
        if scale == 1 or not self.has_alpha:
            rows = planes[top // scale : -(-bottom // scale)]
            return self._planes(rows).repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        first, last = max(0, top // scale - _REACH), min(self.height, -(-bottom // scale) + _REACH)
        strip = self._planes(planes[first:last])
        large = F.interpolate(strip[None], scale_factor=scale, mode="bicubic")[0].clamp(0, 1)
        return large[:, top - first * scale : bottom - first * scale]

    def _planes(self, part: NDArray[Any]) -> Tensor:
        scaled = part.astype(np.float32) / np.float32(self.full_scale)
        return torch.from_numpy(scaled).permute(2, 0, 1)


@dataclass(slots=True, eq=False, weakref_slot=True)
class Result:
    """Turns what a network returns into rows of the result, and measures the change.

    Attributes:
        source: Image that was restored.
        scale: Pixels of the result per pixel and side.
        strength: Share of the network's output, the rest being the input.
        squares: Sum of squared changes so far, on the scale of [0, 1]; 0 if the sizes differ.
        noisy_rows: Sum over the rows so far of the noise estimated in them, on the scale of [0, 1].
    """

    source: Source
    scale: int
    strength: float
    squares: float = field(default=0.0, init=False)
    noisy_rows: float = field(default=0.0, init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        height, width, *channels = self.source.shape
        return (height * self.scale, width * self.scale, *channels)

    @property
    def change(self) -> float | None:
        """Root of the mean squared change of the colours, on the scale of [0, 255]."""
        if self.scale != 1:
            return None
        source = self.source
        return 255 * math.sqrt(self.squares / (source.height * source.width * source.channels))

    @property
    def noise(self) -> float:
        """Noise of the input as far as it looks like that: standard deviation, on the scale of [0, 255]."""
        return 255 * self.noisy_rows / self.source.height

    def rows(self, top: int, band: Tensor) -> NDArray[Any]:
        """Return rows of the result in the dtype of the source, ``(rows, W)`` or ``(rows, W, C)``.

        Args:
            top: First row.
            band: ``(1 or 3, rows, W)``, fp32.
        """
        source, bottom = self.source, top + band.shape[1]
        if self.scale == 1:
            before = source.colour(top, bottom)
            if self.strength != 1:
                band = torch.lerp(before, band, self.strength)
            self.squares += float((band - before).double().square().sum())
            self.noisy_rows += estimate_noise(before) * len(before[0])
        y = torch.cat([band, source.alpha(top, bottom, self.scale)]).permute(1, 2, 0)
        rows = y.reshape(len(y), *self.shape[1:]).numpy()
        if source.dtype.kind != "f":
            rows = (rows * np.float32(source.full_scale)).round().clip(0, source.full_scale)
        return rows.astype(source.dtype)


def estimate_noise(image: Tensor) -> float:
    """Return the standard deviation of the noise that an image seems to hold.

    Args:
        image: ``(C, H, W)``.

    Source: the median of the absolute diagonal details, Donoho, "De-noising by soft-thresholding" (1995), of
        the Haar wavelet here. Fine texture counts as noise.
    """
    height, width = (side // 2 * 2 for side in image.shape[-2:])
    if not height or not width:
        return 0.0
    even, odd = image[:, 0:height:2], image[:, 1:height:2]
    detail = (even[..., 0:width:2] - even[..., 1:width:2] - odd[..., 0:width:2] + odd[..., 1:width:2]) / 2
    return float(detail.abs().median()) / 0.6745
