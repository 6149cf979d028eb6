# SPDX-License-Identifier: Apache-2.0
"""Images, video frames and masks fitted into the square that the vision tower sees, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from vitron.model.hf.configuration import VitronConfig

__all__ = ["ImageFit", "VitronImageProcessor"]


class ImageFit(NamedTuple):
    """Rectangle that an image fills in the square: scaled, its short side padded by equal parts.

    Attributes:
        height: Rows of the rectangle.
        width: Columns of the rectangle.
        top: First row.
        left: First column.
    """

    height: int
    width: int
    top: int
    left: int

    @classmethod
    def of(cls, size: tuple[int, int], side: int) -> ImageFit:
        """Return the rectangle of an image of ``size`` (height, width) in a square of ``side``."""
        longer = max(size)
        height, width = (max(1, round(each * side / longer)) for each in size)
        return cls(height, width, (side - height) // 2, (side - width) // 2)


class VitronImageProcessor(BaseImageProcessor):
    """Fits images into a square and normalises them.

    Args:
        size: ``height`` and ``width`` of the square.
        image_mean: Mean of the three channels, in 0..1; also the colour of the padding.
        image_std: Standard deviation of the three channels.
        **kwargs: Further attributes of image processors of transformers.

    Raises:
        ValueError: If ``size`` is not a square.
    """

    model_input_names: ClassVar[list[str]] = ["pixel_values"]

    def __init__(
        self,
        size: Mapping[str, int] | None = None,
        image_mean: Sequence[float] = (0.481, 0.458, 0.408),
        image_std: Sequence[float] = (0.269, 0.261, 0.276),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size = dict(size or {"height": 336, "width": 336})
        if self.size.get("height") != self.size.get("width"):
            raise ValueError(f"size must be a square, got {self.size}")
        self.image_mean, self.image_std = list(image_mean), list(image_std)

    @property
    def side(self) -> int:
        """Side of the square."""
        return self.size["height"]

    def preprocess(  # pyright: ignore[reportIncompatibleMethodOverride]  # fewer arguments are needed
        self, images: Any, *args: Any, return_tensors: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        """Return ``pixel_values``, ``(N, 3, S, S)``, of images.

        Args:
            images: One image or several: PIL images or uint8 arrays ``(H, W, 3)``.
            *args: Not used.
            return_tensors: ``pt``, ``np`` or ``None``.
            **kwargs: Not used.
        """
        is_single = isinstance(images, Image.Image) or getattr(images, "ndim", 0) == 3
        several: Any = [images] if is_single else images
        fitted = [self.fit(as_frames(each)) for each in several]
        data = {"pixel_values": self.to_pixel_values(np.concatenate(fitted))}
        return BatchFeature(data, tensor_type=return_tensors)

    def fit(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fit frames ``(T, H, W, 3)`` into the square, ``(T, S, S, 3)``, padded with the mean colour."""
        side = self.side
        fit = ImageFit.of(frames.shape[1:3], side)
        if (fit.height, fit.width) == frames.shape[1:3] == (side, side):
            return np.array(frames)  # a copy: torch wants writable arrays
        mean = np.round(np.asarray(self.image_mean) * 255).astype(np.uint8)
        out = np.broadcast_to(mean, (len(frames), side, side, 3)).copy()
        for frame, to in zip(frames, out, strict=True):
            small = Image.fromarray(frame).resize((fit.width, fit.height), Image.Resampling.BICUBIC)
            to[fit.top : fit.top + fit.height, fit.left : fit.left + fit.width] = np.asarray(small)
        return out

    def fit_masks(self, masks: NDArray[np.bool_], side: int | None = None) -> NDArray[np.float32]:
        """Fit masks into the square like images.

        Args:
            masks: ``(N, H, W)``, boolean.
            side: Side of the result; by default that of the square.

        Returns:
            Covered share of each pixel, ``(N, side, side)``.
        """
        fit = ImageFit.of(masks.shape[1:3], self.side)
        out = torch.zeros(len(masks), self.side, self.side)
        small = torch.from_numpy(masks).float()[:, None]
        if masks.shape[1:3] != (fit.height, fit.width):
            small = torch.nn.functional.interpolate(
                small, (fit.height, fit.width), mode="bilinear", antialias=True
            ).clamp(0, 1)
        out[:, fit.top : fit.top + fit.height, fit.left : fit.left + fit.width] = small[:, 0]
        if side is not None and side != self.side:
            out = torch.nn.functional.adaptive_avg_pool2d(out[:, None], side)[:, 0]
        return out.numpy()

    def post_process_masks(self, logits: Tensor, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return masks ``(N, H, W)`` of images of ``size`` (height, width) from logits ``(N, s, s)``."""
        fit = ImageFit.of(size, self.side)
        grown = torch.nn.functional.interpolate(
            logits[:, None].float(), (self.side, self.side), mode="bilinear"
        )
        cut = grown[:, :, fit.top : fit.top + fit.height, fit.left : fit.left + fit.width]
        if (fit.height, fit.width) != size:
            cut = torch.nn.functional.interpolate(cut, size, mode="bilinear")
        return (cut[:, 0] > 0).cpu().numpy()

    def to_pixel_values(self, frames: NDArray[np.uint8]) -> Tensor:
        """Return normalised ``(F, 3, S, S)`` from fitted frames ``(F, S, S, 3)``."""
        images = torch.as_tensor(frames).permute(0, 3, 1, 2).float() / 255
        mean = torch.tensor(self.image_mean).view(1, 3, 1, 1)
        std = torch.tensor(self.image_std).view(1, 3, 1, 1)
        return (images - mean) / std


def as_frames(media: Any) -> NDArray[np.uint8]:
    """Return frames ``(T, H, W, 3)`` of an image, of an array of frames, or of a list of images.

    Raises:
        ValueError: If it has another shape or is not uint8.
    """
    if isinstance(media, Image.Image):
        media = media.convert("RGB")
    elif isinstance(media, (list, tuple)):
        media = np.concatenate([as_frames(each) for each in media])
    frames = np.asarray(media)
    frames = frames[None] if frames.ndim == 3 else frames
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(
            f"images must be uint8 (H, W, 3), videos (T, H, W, 3), got {frames.dtype} {frames.shape}"
        )
    return frames


# one class for both backends: it needs no torchvision
_BACKENDS = {"pil": VitronImageProcessor, "torchvision": VitronImageProcessor}
AutoImageProcessor.register(VitronConfig, image_processor_classes=_BACKENDS)
