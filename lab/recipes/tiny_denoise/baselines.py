# SPDX-License-Identifier: Apache-2.0
"""The classical denoisers to beat, each given the noise level, which our blind network is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from common_kernels.runtime.files import write_json
from numpy.typing import NDArray
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from recipes.cards import CARDS
from recipes.tiny_denoise.gate import SIGMAS
from recipes.tiny_denoise.photographs import COLOUR, noisy, psnr, ssim

Image = NDArray[np.floating]
Scores = dict[str, dict[str, float]]  # method -> {"psnr": dB, "ssim": share}
Figures = dict[str, dict[str, Scores]]  # photograph -> sigma -> method

EQUAL_DB = 100.0  # stands for the infinite PSNR of equal images, which JSON cannot hold

# The total-variation weights are, of 0.6 to 1.6 sigma, those that give the means which the project took as
# reference: 30.64 / 28.43 / 25.57 dB in colour and 30.58 / 28.32 / 25.37 dB in grey at sigma 15 / 25 / 50.
# In colour the best weight of each sigma gives 0.4 to 0.6 dB more, on average still below non-local means.
TV_WEIGHT = {"colour": 1.1, "grey": 0.9}  # per sigma
NLM = {"patch_size": 5, "patch_distance": 6, "h": 0.8}  # pixels, pixels, per sigma


def non_local_means(image: Image, sigma: float) -> Image:
    """Denoise with patches of 5 pixels searched within 6 pixels; ``sigma`` on the scale of [0, 255]."""
    return denoise_nl_means(
        image,
        patch_size=int(NLM["patch_size"]),
        patch_distance=int(NLM["patch_distance"]),
        h=NLM["h"] * sigma / 255,
        sigma=sigma / 255,
        fast_mode=True,
        channel_axis=-1 if image.ndim == 3 else None,
    )


def total_variation(image: Image, sigma: float) -> Image:
    """Denoise by Chambolle's total variation; the weight follows the noise level."""
    weight = TV_WEIGHT["colour" if image.ndim == 3 else "grey"] * sigma / 255
    return denoise_tv_chambolle(image, weight=weight, channel_axis=-1 if image.ndim == 3 else None)


def bm3d(image: Image, sigma: float) -> Image:
    """Denoise by block matching (package ``bm3d``); about a minute for half a megapixel."""
    import bm3d as package

    denoise = package.bm3d_rgb if image.ndim == 3 else package.bm3d
    return denoise(image, sigma / 255)


def bm3d_figures() -> dict[str, dict[str, float]]:
    """Return BM3D's PSNR on the colour photographs, kept in a file since it takes a quarter of an hour."""
    file = CARDS / "bm3d.json"
    figures: dict[str, dict[str, float]] = json.loads(file.read_text()) if file.exists() else {}
    for name, load in COLOUR.items():
        row = figures.setdefault(name, {})
        for sigma in SIGMAS:
            if str(sigma) not in row:
                photo = load()
                row[str(sigma)] = round(psnr(bm3d(noisy(photo, sigma), sigma), photo), 3)
                write_json(file, figures)
    return figures


def settings() -> dict[str, object]:
    """Return all that the figures of the baselines depend on."""
    return {
        "noise": "white Gaussian, seed 0, not clipped; results rounded to 8 bits",
        "nlm": {**NLM, "fast_mode": True},
        "tv": {"weight": TV_WEIGHT},
        "ssim": "Gaussian window, sigma 1.5, of the 8-bit images, mean over channels",
        "scikit-image": version("scikit-image"),
    }


def score(image: Image, photo: NDArray[np.uint8]) -> dict[str, float]:
    """Return PSNR in dB, at most 100, and SSIM of the 8-bit rounded image, rounded for the card."""
    return {"psnr": round(min(psnr(image, photo), EQUAL_DB), 3), "ssim": round(ssim(image, photo), 4)}


def baseline_figures(
    photos: Mapping[str, Callable[[], NDArray[np.uint8]]], sigmas: tuple[int, ...], cache: Path
) -> Figures:
    """Measure the noisy input, total variation and non-local means; kept in a file, made once.

    Args:
        photos: Name and loader of each photograph.
        sigmas: Noise levels, on the scale of [0, 255].
        cache: JSON file of settings and figures; figures of other settings are thrown away.

    Returns:
        Scores of ``"noisy"``, ``"tv"`` and ``"nlm"`` of each photograph and noise level.
    """
    stored = json.loads(cache.read_text("utf-8")) if cache.exists() else {}
    figures: Figures = stored["photos"] if stored.get("settings") == settings() else {}
    wanted = [(name, sigma) for name in photos for sigma in sigmas]
    missing = [(name, sigma) for name, sigma in wanted if str(sigma) not in figures.get(name, {})]
    for name, sigma in missing:
        photo = photos[name]()
        image = noisy(photo, sigma)
        figures.setdefault(name, {})[str(sigma)] = {
            "noisy": score(image, photo),
            "tv": score(total_variation(image, sigma), photo),
            "nlm": score(non_local_means(image, sigma), photo),
        }
    if missing:
        write_json(cache, {"settings": settings(), "photos": figures})
    return {name: {str(sigma): figures[name][str(sigma)] for sigma in sigmas} for name in photos}
