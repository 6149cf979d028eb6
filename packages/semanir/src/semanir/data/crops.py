# SPDX-License-Identifier: Apache-2.0
"""Crops and whole images as tensors; what a crop is follows from its number alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from common_kernels.runtime.images import ImageError, read_image
from torch import Tensor
from torch.utils.data import Dataset

from semanir.data.folders import ImagePair, Stored
from semanir.degradations.kinds import Degradation

_log = logging.getLogger(__name__)

_MARGIN = 16  # pixels around a crop that the degradation sees: an even number of JPEG blocks and of mosaics
_LUMA = (0.299, 0.587, 0.114)  # of BT.601, as grey images are made


@dataclass(frozen=True, kw_only=True)  # no slots: LightningCLI reads defaults by vars()
class CropOptions:
    """How images become samples.

    Attributes:
        patch_size: Side of a crop of the degraded image, in pixels.
        scale: Side of the clean image over that of the degraded one.
        channels: 3 for colour, 1 for grey; a file of the other kind is converted.
        seed: Random seed of order, places, flips and degradations.
    """

    patch_size: int = 128
    scale: int = 1
    channels: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("patch_size", "scale"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """An endless row of random crops: sample ``n`` follows from the seed and ``n``.

    Samples ``e * len`` to ``(e + 1) * len - 1`` are epoch ``e``: every image once, in an order of its own.
    Which crop, flip and degradation an image gets follows from the seed, the epoch and the image's number, so
    a run goes on exactly wherever it was stopped, on however many processes.

    Args:
        pairs: Images, from :func:`find_images` or :func:`find_pairs`.
        degradation: Makes the degraded image where there is no file of it.
        options: Sizes and seed.

    Raises:
        ValueError: If there is no image, or one needs a degradation and there is none.
    """

    def __init__(
        self, pairs: Sequence[ImagePair], degradation: Degradation | None, options: CropOptions
    ) -> None:
        _check(pairs, degradation)
        self.pairs, self.degradation, self.options = tuple(pairs), degradation, options

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.pairs)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Return sample ``number``: degraded and clean, ``(C, P, P)`` and ``(C, s P, s P)``, fp32.

        A file that cannot be read is named in a warning, and the next image takes its place.

        Raises:
            ValueError: If no image can be read.
        """
        epoch, place = divmod(number, len(self.pairs))
        order = _order(self.options.seed, epoch, len(self.pairs))
        for offset in range(len(self.pairs)):
            index = order[(place + offset) % len(self.pairs)]
            try:
                return self._sample(epoch, index)
            except ImageError as error:
                _warn_once(str(error))
        raise ValueError("none of the images can be read")

    def _sample(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        options, pair = self.options, self.pairs[index]
        rng = np.random.default_rng((options.seed, epoch, index))
        clean = read_tensor(pair.clean, options.channels)
        flips = rng.random(3) < 0.5
        if pair.degraded is None:
            _check_size(pair.clean, clean, options.scale * options.patch_size)
            assert self.degradation is not None, "checked at the start"
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            flipped = _flip(_random_crop(clean, options, rng), flips)
            return _degrade_inside(flipped, self.degradation, options, generator)
        degraded = read_tensor(pair.degraded, options.channels)
        scale, size = options.scale, options.patch_size
        _check_size(pair.degraded, degraded, size)
        if clean.shape[-2:] != (scale * degraded.shape[-2], scale * degraded.shape[-1]):
            raise ImageError(f"{pair.clean} is not {scale} times as large as {pair.degraded}")
        top, left = (int(rng.integers(0, side - size + 1)) for side in degraded.shape[-2:])
        degraded = degraded[:, top : top + size, left : left + size]
        clean = clean[:, scale * top : scale * (top + size), scale * left : scale * (left + size)]
        return _flip(degraded, flips).contiguous(), _flip(clean, flips).contiguous()


class WholeImages(Dataset[tuple[Tensor, Tensor]]):
    """Images as they are, for validation: degraded and clean, the same each time.

    Args:
        pairs: Images.
        degradation: Makes the degraded image where there is no file of it.
        options: Channels, scale and seed.
        size: Side of the centre crop of the degraded image that is used, in pixels; all of it if ``None``.
    """

    def __init__(
        self,
        pairs: Sequence[ImagePair],
        degradation: Degradation | None,
        options: CropOptions,
        *,
        size: int | None = None,
    ) -> None:
        _check(pairs, degradation)
        self.pairs, self.degradation, self.options, self.size = tuple(pairs), degradation, options, size

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return image ``index``: degraded and clean, ``(C, H, W)`` and ``(C, s H, s W)``, fp32."""
        pair, scale = self.pairs[index], self.options.scale
        clean = read_tensor(pair.clean, self.options.channels)
        if pair.degraded is not None:
            degraded = read_tensor(pair.degraded, self.options.channels)
        else:
            assert self.degradation is not None, "checked at the start"
            height, width = (side // scale * scale for side in clean.shape[-2:])
            clean = clean[:, :height, :width]
            seed = np.random.SeedSequence((self.options.seed, index)).generate_state(1, np.uint64)[0]
            degraded = self.degradation(clean[None], torch.Generator().manual_seed(int(seed >> 2)))[0]
        if self.size is not None:
            size = [min(self.size, side) for side in degraded.shape[-2:]]
            corner = [(side - each) // 2 for side, each in zip(degraded.shape[-2:], size, strict=True)]
            degraded = _cut(degraded, corner, size)
            clean = _cut(clean, [scale * each for each in corner], [scale * each for each in size])
        return degraded, clean


def read_tensor(path: Path | Stored, channels: int) -> Tensor:
    """Read an image as ``(channels, H, W)``, fp32 in [0, 1]; transparency is dropped.

    Raises:
        ImageError: If it cannot be read, or holds NaN or infinite values.
    """
    source = path if isinstance(path, Path) else path.read()
    pixels = read_image(source, name=str(path)).pixels
    full_scale = 1.0 if pixels.dtype == np.float32 else float(2 ** (8 * pixels.dtype.itemsize) - 1)
    planes = pixels.reshape(*pixels.shape[:2], -1)
    colour = planes[..., : 1 if planes.shape[-1] < 3 else 3]
    x = torch.from_numpy(colour.astype(np.float32) / np.float32(full_scale)).permute(2, 0, 1)
    if not bool(x.isfinite().all()):
        raise ImageError(f"{path} holds NaN or infinite values")
    if channels == 1 and len(x) == 3:
        return (x * torch.tensor(_LUMA).view(3, 1, 1)).sum(dim=0, keepdim=True)
    return x.expand(channels, -1, -1)


def _check_size(path: Path | Stored, image: Tensor, least: int) -> None:
    if min(image.shape[-2:]) < least:
        height, width = image.shape[-2:]
        raise ImageError(f"{path} is {width} x {height} pixels, less than {least}")


def _random_crop(clean: Tensor, options: CropOptions, rng: np.random.Generator) -> Tensor:
    """Cut a crop with a margin on every side as far as the image reaches; mirrored beyond."""
    scale, wanted = options.scale, options.patch_size * options.scale
    margin = _MARGIN * scale
    corner = [int(rng.integers(0, side - wanted + 1)) for side in clean.shape[-2:]]
    rows, columns = (
        _mirrored(range(start - margin, start + wanted + margin), side)
        for start, side in zip(corner, clean.shape[-2:], strict=True)
    )
    return clean[:, rows][:, :, columns]


def _mirrored(places: range, side: int) -> Tensor:
    position = torch.arange(places.start, places.stop).remainder(2 * side)
    return torch.where(position < side, position, 2 * side - 1 - position)


def _degrade_inside(
    clean: Tensor, degradation: Degradation, options: CropOptions, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Degrade a crop with its margin, and cut the margin off."""
    degraded = degradation(clean[None], generator)[0]
    scale, size = options.scale, options.patch_size
    expected = size + 2 * _MARGIN
    if degraded.shape[-1] != expected:
        raise ValueError(
            f"the degradation makes {clean.shape[-1]} pixels {degraded.shape[-1]}, but scale={scale} "
            f"makes them {expected}"
        )
    inside, outside = [_MARGIN] * 2, [_MARGIN * scale] * 2
    return _cut(degraded, inside, [size] * 2), _cut(clean, outside, [size * scale] * 2)


def _cut(x: Tensor, corner: Sequence[int], size: Sequence[int]) -> Tensor:
    return x[:, corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]].contiguous()


def _flip(x: Tensor, flips: Sequence[bool] | np.ndarray) -> Tensor:
    """Flip and transpose a square."""
    x = x.transpose(-1, -2) if flips[0] else x
    axes = [axis for axis, flipped in zip((-2, -1), flips[1:], strict=True) if flipped]
    return x.flip(axes) if axes else x


def _check(pairs: Sequence[ImagePair], degradation: Degradation | None) -> None:
    if not pairs:
        raise ValueError("there are no images")
    if degradation is None and any(pair.degraded is None for pair in pairs):
        raise ValueError("images without degraded files need a degradation")


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> list[int]:
    return np.random.default_rng((seed, epoch)).permutation(count).tolist()


@lru_cache(maxsize=1024)
def _warn_once(message: str) -> None:
    _log.warning("%s; another image takes its place", message)
