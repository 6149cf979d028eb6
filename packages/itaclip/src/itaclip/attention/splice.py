# SPDX-License-Identifier: Apache-2.0
"""Windows spliced to one map of the image before it is matched with texts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from common_kernels.tiling import TilePlan, plan_tiles
from torch import Tensor
from torch.nn import functional as F

from itaclip.attention.registry import build_attention
from itaclip.config import ITACLIPConfig
from itaclip.encoder import AttentionStrategy, Encoder, LastInput
from itaclip.features import Prepared, Progress, Reduce, WindowEncoder, WindowMaps
from itaclip.inputs import ImageLike, Normalizer, to_tensor
from itaclip.windows import plan_windows, resized_shape


class GatheringStrategy(AttentionStrategy):
    """Attention in two steps: within windows, and over the map that their features are spliced to."""

    @abstractmethod
    def window_maps(self, last: LastInput, encoder: Encoder) -> Tensor:
        """Return what is spliced, on the grid of the tower.

        Args:
            last: Input of the last block, of windows.
            encoder: The image tower.

        Returns:
            ``(B, C, height, width)``.
        """

    @abstractmethod
    def gather(self, spliced: Tensor, pixels: Tensor, encoder: Encoder) -> Tensor:
        """Return the features of an image in the space of the texts.

        Args:
            spliced: Mean of the windows' maps, ``(C, height, width)``, in patches of the tower.
            pixels: The image at its own size, ``(3, H, W)``, RGB in [0, 1].
            encoder: The image tower.

        Returns:
            ``(D, height, width)`` on any grid over the image, not normalised.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SplicedImage(Prepared):
    """An image whose windows are spliced: ``plan`` is the one map that comes out.

    Attributes:
        windows: Windows of the resized image.
        pixels: The image at its own size, ``(3, H, W)``, RGB in [0, 1].
    """

    windows: TilePlan
    pixels: Tensor


class SplicingEncoder(WindowEncoder):
    """Encodes images window by window, splices the features in patches, and gathers them over the image.

    Args:
        encoder: The image tower.
        normalizer: Resizing and normalisation.
        config: Windows and batch size; sides of windows and strides are multiples of the patch.
        attention: Strategy that gathers.

    Raises:
        ValueError: If windows do not start at whole patches, or there are branches besides the image itself.
    """

    def __init__(
        self, encoder: Encoder, normalizer: Normalizer, config: ITACLIPConfig, attention: GatheringStrategy
    ) -> None:
        super().__init__(encoder, normalizer, config, attention)
        self.gatherer = attention
        patch = encoder.patch_size[0]
        if config.crop % patch or (config.crop and config.stride % patch):
            raise ValueError(
                f"windows are spliced in patches of {patch} px: crop and stride must be multiples, "
                f"got {config.crop} and {config.stride}"
            )
        if config.branches != ("identity",):
            raise ValueError(
                f"attention {config.attention.strategy} has no branches but identity, "
                f"got {', '.join(config.branches)}"
            )

    def prepare(self, image: ImageLike) -> SplicedImage:
        """Resize to whole patches, normalise and plan one image.

        Raises:
            TypeError: As :func:`itaclip.inputs.to_tensor`.
            ValueError: Likewise.
        """
        pixels, config = to_tensor(image), self.config
        height, width = pixels.shape[-2:]
        wanted = resized_shape(height, width, short=config.resize_short, long=config.resize_long)
        patches = self.encoder.patch_size
        rows, columns = (-(-side // patch) * patch for side, patch in zip(wanted, patches, strict=True))
        return SplicedImage(
            image=self.normalizer(pixels, (rows, columns), self.encoder.device),
            plan=plan_tiles(height, width, tile=(height, width)),
            size=(height, width),
            windows=plan_windows(rows, columns, crop=config.crop, stride=config.stride),
            pixels=pixels,
        )

    def encode(
        self, images: Sequence[Prepared], reduce: Reduce, progress: Progress | None = None
    ) -> list[WindowMaps]:
        """Return the one map of every image, in patches of the gathering tower.

        Args:
            images: From :meth:`prepare`.
            reduce: Turns features ``(B, D, height, width)`` of unit length into the maps that are kept.
            progress: Called with windows done and windows in total.
        """
        found: list[WindowMaps] = []
        planned = [image for image in images if isinstance(image, SplicedImage)]
        total, done = sum(len(image.windows) for image in planned), 0
        for image in planned:
            pixels = image.pixels.to(image.image.device)
            features = self.gatherer.gather(self._splice(image), pixels, self.encoder)
            values = reduce(F.normalize(features.float(), dim=0)[None])[0]
            found.append(WindowMaps(values, (values.shape[-2], values.shape[-1])))
            done += len(image.windows)
            if progress is not None:
                progress(done, total)
        return found

    def _splice(self, image: SplicedImage) -> Tensor:
        """Return the mean of the features of all windows, ``(C, height, width)``, in patches of CLIP."""
        patch = self.encoder.patch_size
        boxes = list(image.windows)
        total = count = torch.empty(0)
        for start in range(0, len(boxes), self.config.batch_size):
            chunk = boxes[start : start + self.config.batch_size]
            cuts = torch.stack([image.windows.cut(image.image, box) for box in chunk])
            last = self.encoder.prepare(cuts, self.gatherer, positions=self.config.positions)
            maps = self.gatherer.window_maps(last, self.encoder).float()
            if not total.numel():
                size = (image.windows.height // patch[0], image.windows.width // patch[1])
                total, count = maps.new_zeros(maps.shape[1], *size), maps.new_zeros(size)
            for box, window in zip(chunk, maps, strict=True):
                rows = slice(box.top // patch[0], box.bottom // patch[0])
                columns = slice(box.left // patch[1], box.right // patch[1])
                total[:, rows, columns] += window
                count[rows, columns] += 1
        return (total / count).to(self.encoder.tower.dtype)


def build_windows(
    encoder: Encoder,
    normalizer: Normalizer,
    config: ITACLIPConfig,
    attention: AttentionStrategy | None = None,
) -> WindowEncoder:
    """Return what encodes images in the way that the attention wants.

    Args:
        encoder: The image tower.
        normalizer: Resizing and normalisation.
        config: Configuration.
        attention: Attention of the last block; the one that the configuration names if ``None``.

    Raises:
        ValueError: If the attention is unknown or does not fit tower and configuration.
        ModelNotFoundError: If the attention needs another model that is not there.
    """
    strategy = build_attention(config.attention) if attention is None else attention
    if isinstance(strategy, GatheringStrategy):
        return SplicingEncoder(encoder, normalizer, config, strategy)
    return WindowEncoder(encoder, normalizer, config, strategy)
