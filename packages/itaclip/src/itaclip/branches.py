# SPDX-License-Identifier: Apache-2.0
"""Image engineering: versions of every window, and how their features come together again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from itaclip.config import BRANCHES, FLIPS, ITACLIPConfig
from itaclip.functional import luma_gray, mix_categories


def blur(images: Tensor, kernel: int, sigma: float) -> Tensor:
    """Blur by a Gaussian with reflected borders.

    Args:
        images: ``(B, 3, H, W)``.
        kernel: Pixels of the kernel, odd; in images too small to reflect it, the largest that fits.
        sigma: Standard deviation, in pixels.
    """
    sides = [min(kernel, 2 * side - 1) for side in (images.shape[-1], images.shape[-2])]
    return tv.gaussian_blur_image(images, kernel_size=sides, sigma=[sigma, sigma])


def make_branches(windows: Tensor, config: ITACLIPConfig) -> Tensor:
    """Return every version of every window, version after version.

    Args:
        windows: ``(B, 3, H, W)``, normalised.
        config: Which branches, and the blur.

    Returns:
        ``(branches * B, 3, H, W)``.
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
    """Normalise the patch features of all branches, flip back what was flipped, and average.

    Text scores and upsampling are linear and upsampling commutes with flips, so mixing features gives what
    mixing score maps in pixels gives.

    Args:
        features: ``(branches * B, D, height, width)`` in the order of :func:`make_branches`.
        config: Which branches, and the share of the first category.

    Returns:
        ``(B, D, height, width)``, fp32, not normalised.
    """
    unit = F.normalize(features.float(), dim=1)
    parts = dict(zip(config.branches, unit.chunk(len(config.branches)), strict=True))
    back = {"vflip": -2, "hflip": -1}
    ordered = [name for name in BRANCHES if name in parts]
    first = [parts[name] for name in ordered if name not in FLIPS]
    second = [parts[name].flip(back[name]) for name in ordered if name in FLIPS]
    return mix_categories(first, second, config.lam)
