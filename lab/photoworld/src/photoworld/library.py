# SPDX-License-Identifier: Apache-2.0
"""Reads pictures once and samples them at any place and size."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from math import hypot, log2
from pathlib import Path

import numpy as np
from common_kernels.runtime.images import read_rgb
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from skimage import data
from sklearn.datasets import load_sample_image

from photoworld.fetching import MANIFEST, root
from photoworld.manifest import Manifest, Picture

Float = NDArray[np.float64]

# shorter side in pixels of a photograph as a background: composites are small
BACKGROUND_SIDE = 640
# larger side in pixels of a cut-out whose outline is measured
OUTLINE_SIDE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Pyramid:
    """A picture at all halves of its size.

    Attributes:
        levels: ``(H, W, C)`` fp32 in [0, 1] each, the largest first.
    """

    levels: tuple[NDArray[np.float32], ...]

    @classmethod
    def of(cls, image: NDArray[np.float32]) -> Pyramid:
        """Halve an image ``(H, W, C)`` until a side has but a few pixels."""
        levels = [image]
        while min(levels[-1].shape[:2]) >= 8:
            last = levels[-1][: levels[-1].shape[0] // 2 * 2, : levels[-1].shape[1] // 2 * 2]
            levels.append((last[::2, ::2] + last[1::2, ::2] + last[::2, 1::2] + last[1::2, 1::2]) / 4)
        return cls(tuple(levels))

    def sample(self, x: Float, y: Float, step: float, mode: str) -> Float:
        """Return the colours at places, between pixels by linear interpolation.

        Args:
            x: To the right from the left edge, in pixels of the first level.
            y: Down from the upper edge, likewise.
            step: Distance between neighbouring places, in such pixels, which chooses the level.
            mode: What is beyond the edges, as in ``scipy.ndimage``.

        Returns:
            ``(*x.shape, C)``.
        """
        number = min(max(round(log2(max(step, 1e-6))), 0), len(self.levels) - 1)
        level, scale = self.levels[number], 0.5**number
        places = [y * scale - 0.5, x * scale - 0.5]
        channels = [
            ndimage.map_coordinates(level[..., channel], places, order=1, mode=mode, output=np.float64)
            for channel in range(level.shape[2])
        ]
        return np.stack(channels, axis=-1)


@dataclass(frozen=True, slots=True, eq=False)
class Stamp:
    """A cut-out.

    Attributes:
        pyramid: Red, green, blue and alpha, colours times alpha, cropped to what is opaque.
        centre: Centre of the crop, x and y in pixels.
        radius: Largest distance of an opaque pixel from it, pixels.
        edge: Signed distance to the outline on a coarse raster with a margin, pixels of the pyramid,
            negative inside, ``(H, W, 1)``.
        edge_scale: Pixels of that raster per pixel of the pyramid.
        edge_margin: Margin, in pixels of that raster.
        brightness: Mean of the channels over the opaque pixels, in [0, 1].
    """

    pyramid: Pyramid
    centre: tuple[float, float]
    radius: float
    edge: NDArray[np.float32]
    edge_scale: float
    edge_margin: int
    brightness: float

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> Stamp:
        """Prepare a cut-out.

        Args:
            pixels: ``(H, W, 4)`` RGB and alpha.

        Raises:
            ValueError: If no pixel is opaque.
        """
        opaque = pixels[..., 3] > 127
        if not opaque.any():
            raise ValueError("pixels must have an opaque one")
        rows, columns = np.flatnonzero(opaque.any(axis=1)), np.flatnonzero(opaque.any(axis=0))
        part = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32) / 255
        height, width = part.shape[:2]
        part[..., :3] *= part[..., 3:]
        y, x = np.nonzero(part[..., 3] > 0.5)
        radius = float(np.hypot(x + 0.5 - width / 2, y + 0.5 - height / 2).max()) + 0.5
        alpha, scale = part[..., 3], min(1.0, OUTLINE_SIDE / max(height, width))
        inside = ndimage.zoom(alpha, scale, order=1, grid_mode=True, mode="nearest") > 0.5
        margin = 2 + round(hypot(*inside.shape) / 2)
        inside = np.pad(inside, margin)
        edge = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
        return cls(
            Pyramid.of(part),
            (width / 2, height / 2),
            radius,
            (edge / scale).astype(np.float32)[..., None],
            scale,
            margin,
            float(part[..., :3].sum() / (3 * alpha.sum())),
        )


class Library:
    """The pictures of a folder.

    Args:
        folder: Folder that :func:`photoworld.fetching.fetch` filled.

    Raises:
        FileNotFoundError: If it was not filled.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / MANIFEST).exists():
            raise FileNotFoundError(f"no pictures in {folder}: run python -m photoworld fetch")
        self.folder, self.manifest = folder, Manifest.read(folder / MANIFEST)
        self.stamp = lru_cache(maxsize=None)(self._stamp)
        self.ground = lru_cache(maxsize=64)(self._ground)

    def file(self, picture: Picture) -> Path:
        """Return the file of a picture that was fetched."""
        return self.folder / picture.key

    def photo(self, key: str) -> NDArray[np.uint8]:
        """Return a photograph in its full size, ``(H, W, 3)`` uint8."""
        return np.asarray(self._open(self.manifest.by_key[key]))

    def _stamp(self, key: str) -> Stamp:
        with Image.open(self.file(self.manifest.by_key[key])) as image:
            return Stamp.of(np.asarray(image.convert("RGBA")))

    def _ground(self, key: str) -> Pyramid:
        image = self._open(self.manifest.by_key[key])
        scale = min(1.0, BACKGROUND_SIDE / min(image.size))
        size = (round(image.width * scale), round(image.height * scale))
        small = image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)
        return Pyramid.of(np.asarray(small, dtype=np.float32) / 255)

    def _open(self, picture: Picture) -> Image.Image:
        if picture.is_fetched:
            return read_rgb(self.file(picture))
        if picture.package == "scikit-learn":
            return Image.fromarray(load_sample_image(picture.path))
        return Image.fromarray(getattr(data, picture.path)())


def library() -> Library:
    """Return the pictures of :func:`photoworld.fetching.root`, read once."""
    return _library(os.environ.get("PHOTOWORLD"))


@lru_cache(maxsize=2)
def _library(folder: str | None) -> Library:
    return Library(Path(folder) if folder else root())
