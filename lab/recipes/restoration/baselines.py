# SPDX-License-Identifier: Apache-2.0
"""The classical methods to beat, each told how far the input is from the truth; our networks are not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from common_kernels.runtime.files import write_json
from semanir.degradations import resize_bicubic
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from recipes.restoration.conditions import Condition, Image, Photo
from recipes.restoration.photographs import FURTHER, psnr, ssim

Photos = Mapping[str, Callable[[], Photo]]
Scores = dict[str, dict[str, float]]  # method -> {"psnr": dB, "ssim": share}
Figures = dict[str, dict[str, Scores]]  # photograph -> condition -> method

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


METHODS: dict[str, Callable[[Image, float], Image]] = {"tv": total_variation, "nlm": non_local_means}


def deviation(image: Image, photo: Photo, condition: Condition) -> float:
    """Return what a method is told: sigma, or the root mean square error of the input, of [0, 255]."""
    if condition.sigma is not None:
        return condition.sigma
    return max(0.1, float(np.sqrt(np.mean((image * 255 - photo) ** 2))))


def enlarged(image: Image, condition: Condition) -> Image:
    """Return the input in the size of the truth, bicubically if it is smaller."""
    if condition.scale == 1:
        return image
    x = torch.from_numpy(np.atleast_3d(image)).permute(2, 0, 1)
    large = resize_bicubic(x, condition.scale).permute(1, 2, 0).numpy()
    return large if image.ndim == 3 else large[..., 0]


def bm3d_figures(
    photos: Photos, conditions: tuple[Condition, ...], file: Path
) -> dict[str, dict[str, float]]:
    """Return BM3D's PSNR in dB of each photograph and condition, kept in a file since it takes long."""
    figures: dict[str, dict[str, float]] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    for condition in filter(lambda each: each.baselines, conditions):
        for name, load in photos_of(photos, condition).items():
            row = figures.setdefault(name, {})
            if condition.name not in row:
                image, photo = condition.apply(load())
                result = bm3d(image, deviation(image, photo, condition))
                row[condition.name] = round(psnr(result, photo), 3)
                write_json(file, figures)
    return figures


def settings() -> dict[str, object]:
    """Return all that the figures of the baselines depend on, but the conditions."""
    return {
        "rounding": "results rounded to 8 bits",
        "nlm": {**NLM, "fast_mode": True},
        "tv": {"weight": TV_WEIGHT},
        "ssim": "Gaussian window, sigma 1.5, of the 8-bit images, mean over channels",
        "scikit-image": version("scikit-image"),
    }


def score(image: Image, photo: Photo) -> dict[str, float]:
    """Return PSNR in dB, at most 100, and SSIM of the 8-bit rounded image, rounded for the card."""
    return {"psnr": round(min(psnr(image, photo), EQUAL_DB), 3), "ssim": round(ssim(image, photo), 4)}


def baseline_figures(photos: Photos, conditions: tuple[Condition, ...], cache: Path) -> Figures:
    """Measure the input and the classical methods; kept in a file, made once.

    Args:
        photos: Name and loader of each photograph.
        conditions: How they are degraded.
        cache: JSON file of settings and figures; figures of other settings are thrown away.

    Returns:
        Scores of ``"input"``, enlarged if it is smaller, and of the baselines per photograph and condition.
    """
    stored = json.loads(cache.read_text("utf-8")) if cache.exists() else {}
    is_same = stored.get("settings") == settings()
    # all of a condition is the key: one that was changed is measured again
    known: dict[str, dict[str, Scores]] = stored["conditions"] if is_same else {}
    missing = [
        (name, condition)
        for condition in conditions
        for name, photo in photos_of(photos, condition).items()
        if name not in known.setdefault(repr(condition), {})
    ]
    for name, condition in missing:
        known[repr(condition)][name] = measure_baselines(photos[name](), condition)
        write_json(cache, {"settings": settings(), "conditions": known})
    figures: Figures = {}
    for condition in conditions:
        for name in photos_of(photos, condition):
            figures.setdefault(name, {})[condition.name] = dict(known[repr(condition)][name])
    return figures


def photos_of(photos: Photos, condition: Condition) -> Photos:
    """Return the photographs that a condition is for."""
    wanted = {name: load for name, load in photos.items() if condition.sigma is None or name not in FURTHER}
    return {name: load for name, load in wanted.items() if not condition.is_colour or load().ndim == 3}


def measure_baselines(photo: Photo, condition: Condition, seed: int | None = None) -> Scores:
    """Return the scores of the input and of the classical methods of a condition on one photograph."""
    image, clean = condition.apply(photo, seed)
    scores = {"input": score(enlarged(image, condition), clean)}
    for name in condition.baselines:
        scores[name] = score(METHODS[name](image, deviation(image, clean, condition)), clean)
    return scores
