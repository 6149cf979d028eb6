# SPDX-License-Identifier: Apache-2.0
"""Windows of all images, in all their versions, through the image tower together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from common_kernels.tiling import TilePlan
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from itaclip.attention.registry import build_attention
from itaclip.config import BRANCHES, FLIPS, ITACLIPConfig
from itaclip.encoder import AttentionStrategy, Encoder
from itaclip.inputs import ImageLike, Normalizer, to_tensor
from itaclip.windows import Grid, plan_windows, resized_shape

# weights of red, green and blue in ITU-R BT.601
LUMA = (0.2989, 0.587, 0.114)
_FLIPPED_AXIS = {"vflip": -2, "hflip": -1}

Reduce = Callable[[Tensor], Tensor]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image ready for its windows.

    Attributes:
        image: Resized and normalised, ``(3, h, w)``.
        plan: Its windows.
        size: Original height and width.
        regions: Numbers of regions at the original size, ``(H, W)``, 0 for none; ``None`` unless the
            attention needs them.
    """

    image: Tensor
    plan: TilePlan
    size: tuple[int, int]
    regions: Tensor | None = None


@dataclass(frozen=True, slots=True)
class WindowMaps:
    """Maps of all windows of an image.

    Attributes:
        values: ``(K, rows * height, columns * width)``: the maps of the windows beside and below each other.
        grid: Patches of one window, height and width.
    """

    values: Tensor
    grid: Grid


class WindowEncoder:
    """Encodes images window by window, in batches.

    Args:
        encoder: The image tower.
        normalizer: Resizing and normalisation.
        config: Windows, branches, the last block and the batch size.
        attention: Attention of the last block; the one that the configuration names if ``None``.

    Raises:
        ValueError: If a window is smaller than a patch, the attention is unknown, or it does not fit the
            tower.
        ModelNotFoundError: If the attention needs another model that is not there.
    """

    def __init__(
        self,
        encoder: Encoder,
        normalizer: Normalizer,
        config: ITACLIPConfig,
        attention: AttentionStrategy | None = None,
    ) -> None:
        self.encoder, self.normalizer, self.config = encoder, normalizer, config
        self.attention = build_attention(config.attention) if attention is None else attention
        self.attention.layers(encoder.tower.num_blocks)
        self.attention.bind(encoder)
        patch = max(encoder.patch_size)
        if 0 < config.crop < patch:
            raise ValueError(f"crop must be at least one patch of {patch} px, got {config.crop}")
        if self.attention.needs_regions and config.branches != ("identity",):
            raise ValueError(
                f"attention {config.attention.strategy} has no branches but identity, "
                f"got {', '.join(config.branches)}"
            )
        self.windows_at_once = max(1, config.batch_size // len(config.branches))

    def prepare(self, image: ImageLike) -> Prepared:
        """Resize, normalise and plan one image.

        Raises:
            TypeError: As :func:`itaclip.inputs.to_tensor`.
            ValueError: Likewise.
        """
        pixels = to_tensor(image)
        height, width = pixels.shape[-2:]
        config = self.config
        least = max(self.encoder.patch_size)
        size = resized_shape(height, width, short=config.resize_short, long=config.resize_long, least=least)
        plan = plan_windows(*size, crop=config.crop, stride=config.stride)
        regions = self.attention.find_regions(pixels) if self.attention.needs_regions else None
        return Prepared(self.normalizer(pixels, size, self.encoder.device), plan, (height, width), regions)

    def encode(
        self, images: Sequence[Prepared], reduce: Reduce, progress: Progress | None = None
    ) -> list[WindowMaps]:
        """Return one map per window of every image.

        Windows of one size go through the tower together, from whichever image they are.

        Args:
            images: From :meth:`prepare`.
            reduce: Turns features ``(B, D, height, width)`` into the maps that are kept,
                ``(B, K, height, width)``.
            progress: Called with windows done and windows in total.
        """
        jobs = [(number, box) for number, image in enumerate(images) for box in image.plan]
        sizes = [(box.bottom - box.top, box.right - box.left) for _, box in jobs]
        regions = [_fitted(image) for image in images]
        maps: dict[int, Tensor] = {}
        for _, run in groupby(sorted(range(len(jobs)), key=sizes.__getitem__), key=sizes.__getitem__):
            alike = list(run)
            for start in range(0, len(alike), self.windows_at_once):
                chunk = alike[start : start + self.windows_at_once]
                cuts = [
                    images[jobs[job][0]].plan.cut(images[jobs[job][0]].image, jobs[job][1]) for job in chunk
                ]
                versions = make_branches(torch.stack(cuts), self.config)
                parts = [
                    images[jobs[job][0]].plan.cut(found, jobs[job][1])
                    for job in chunk
                    if (found := regions[jobs[job][0]]) is not None
                ]
                features = self.encoder(
                    versions,
                    self.attention,
                    positions=self.config.positions,
                    regions=torch.stack(parts) if parts else None,
                )
                maps.update(zip(chunk, reduce(join_branches(features, self.config)), strict=True))
                if progress is not None:
                    progress(len(maps), len(jobs))
        ordered = iter([maps[job] for job in range(len(jobs))])
        return [_lay_out([next(ordered) for _ in image.plan], image.plan) for image in images]


def _fitted(image: Prepared) -> Tensor | None:
    """Return the regions at the size of the resized image, ``(h, w)``."""
    if image.regions is None:
        return None
    found = image.regions[None, None].float().to(image.image.device)
    return F.interpolate(found, size=image.image.shape[-2:], mode="nearest")[0, 0].long()


def _lay_out(maps: list[Tensor], plan: TilePlan) -> WindowMaps:
    stacked = torch.stack(maps).unflatten(0, (len(plan.rows), len(plan.columns)))
    values = stacked.permute(2, 0, 3, 1, 4)  # (K, rows, height, columns, width)
    return WindowMaps(values.flatten(3).flatten(1, 2), (stacked.shape[-2], stacked.shape[-1]))


def text_scores(text: Tensor) -> Reduce:
    """Return the function that turns features into similarities with texts.

    Args:
        text: ``(names, D)``, fp32.
    """

    def reduce(features: Tensor) -> Tensor:
        grid = features.shape[-2:]
        return (text @ features.flatten(2)).unflatten(-1, grid)  # (B, names, height, width)

    return reduce


def make_branches(windows: Tensor, config: ITACLIPConfig) -> Tensor:
    """Return every version of every window, version after version.

    Args:
        windows: ``(B, 3, H, W)``, normalised.
        config: Branches and blur.

    Returns:
        ``(branches * B, 3, H, W)``.

    Source: arXiv 2411.12044, image engineering.
    """
    makers: Mapping[str, Callable[[], Tensor]] = {
        "identity": lambda: windows,
        "gray": lambda: luma_gray(windows),
        "blur": lambda: blur(windows, config.blur_kernel, config.blur_sigma),
        "vflip": lambda: windows.flip(-2),
        "hflip": lambda: windows.flip(-1),
    }
    return torch.cat([makers[name]() for name in config.branches])


def join_branches(features: Tensor, config: ITACLIPConfig) -> Tensor:
    """Normalise the patch features of all branches, undo the flips, and average.

    Both categories are averaged and mixed: ``lam * mean(first) + (1 - lam) * mean(second)``, or the mean of
    the one that is there. Text scores and upsampling are linear and upsampling commutes with flips, so mixing
    features gives what mixing score maps in pixels gives.

    Args:
        features: ``(branches * B, D, height, width)`` in the order of :func:`make_branches`.
        config: Branches, and the weight of the first category.

    Returns:
        ``(B, D, height, width)``, fp32, not normalised.

    Source: arXiv 2411.12044, image engineering.
    """
    unit = F.normalize(features.float(), dim=1).unflatten(0, (len(config.branches), -1))
    parts = {name: unit[number] for number, name in enumerate(config.branches)}
    ordered = [name for name in BRANCHES if name in parts]
    first = [parts[name] for name in ordered if name not in FLIPS]
    second = [parts[name].flip(_FLIPPED_AXIS[name]) for name in ordered if name in FLIPS]
    means = [torch.stack(category).mean(dim=0) for category in (first, second) if category]
    return means[0] if len(means) == 1 else config.lam * means[0] + (1 - config.lam) * means[1]


def luma_gray(images: Tensor) -> Tensor:
    """Return the grey version of RGB images, three equal channels.

    Args:
        images: ``(..., 3, H, W)``, usually normalised already: the weights then act on normalised channels.

    Source: arXiv 2411.12044, image engineering, as the published code applies it.
    """
    weights = images.new_tensor(LUMA).view(3, 1, 1)
    return (images * weights).sum(dim=-3, keepdim=True).expand_as(images)


def blur(images: Tensor, kernel: int, sigma: float) -> Tensor:
    """Blur by a Gaussian with reflected borders.

    Args:
        images: ``(B, 3, H, W)``.
        kernel: Side of the kernel in pixels, odd; in images too small to reflect it, the largest that fits.
        sigma: Standard deviation, in pixels.
    """
    sides = [min(kernel, 2 * side - 1) for side in (images.shape[-1], images.shape[-2])]
    return tv.gaussian_blur_image(images, kernel_size=sides, sigma=[sigma, sigma])
