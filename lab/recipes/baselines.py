# SPDX-License-Identifier: Apache-2.0
"""The classical denoisers to beat, each told the noise level, which our blind network is not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

Image = NDArray[np.floating]


def non_local_means(image: Image, sigma: float) -> Image:
    """Denoise with patches of 5 pixels searched within 6 pixels; ``sigma`` on the scale of [0, 255]."""
    return denoise_nl_means(
        image,
        patch_size=5,
        patch_distance=6,
        h=0.8 * sigma / 255,
        sigma=sigma / 255,
        fast_mode=True,
        channel_axis=-1 if image.ndim == 3 else None,
    )


def total_variation(image: Image, sigma: float) -> Image:
    """Denoise by Chambolle's total variation, its weight the noise level."""
    return denoise_tv_chambolle(image, weight=sigma / 255, channel_axis=-1 if image.ndim == 3 else None)


def bm3d(image: Image, sigma: float) -> Image:
    """Denoise by block matching (package ``bm3d``); about a minute for half a megapixel."""
    import bm3d as package

    denoise = package.bm3d_rgb if image.ndim == 3 else package.bm3d
    return denoise(image, sigma / 255)
