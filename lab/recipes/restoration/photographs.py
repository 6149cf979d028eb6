# SPDX-License-Identifier: Apache-2.0
"""The test photographs inside scikit-image and scikit-learn; nothing is ever trained on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from skimage import data
from skimage.metrics import structural_similarity
from sklearn.datasets import load_sample_image

COLOUR: dict[str, Callable[[], NDArray[np.uint8]]] = {
    "astronaut": data.astronaut,
    "coffee": data.coffee,
    "chelsea": data.chelsea,
    "rocket": data.rocket,
    "motorcycle": lambda: data.stereo_motorcycle()[0],
}
# degraded in all ways but white noise, whose figures are to stay comparable with those of the five above
FURTHER: dict[str, Callable[[], NDArray[np.uint8]]] = {
    "china": lambda: load_sample_image("china.jpg"),
    "flower": lambda: load_sample_image("flower.jpg"),
}
GREY: dict[str, Callable[[], NDArray[np.uint8]]] = {
    "camera": data.camera,
    "brick": data.brick,
    "grass": data.grass,
    "gravel": data.gravel,
    "moon": data.moon,
    "coins": data.coins,
}


def noisy(photo: NDArray[np.uint8], sigma: float, seed: int = 0) -> NDArray[np.float64]:
    """Add white Gaussian noise, not clipped.

    Args:
        photo: ``(H, W)`` or ``(H, W, 3)`` uint8.
        sigma: Standard deviation, on the scale of [0, 255].
        seed: Random seed of the noise.

    Returns:
        The shape of ``photo``, on the scale of [0, 1].
    """
    return photo / 255 + np.random.default_rng(seed).normal(0, sigma / 255, photo.shape)


def to_8bit(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Round an image on the scale of [0, 1] to what a file would hold."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def psnr(image: NDArray[np.floating], photo: NDArray[np.uint8]) -> float:
    """Return the PSNR in dB of the 8-bit rounded image; infinite if equal."""
    error = np.mean((to_8bit(image).astype(np.float64) - photo) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def ssim(image: NDArray[np.floating], photo: NDArray[np.uint8]) -> float:
    """Return the SSIM of the 8-bit rounded image: Gaussian window of 1.5 pixels, mean over channels."""
    return float(
        structural_similarity(
            to_8bit(image),
            photo,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=-1 if photo.ndim == 3 else None,
        )
    )
