# SPDX-License-Identifier: Apache-2.0
"""Enlargement of windows of large photographs from a quarter of their size, beside Lanczos."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pixelsmith.adapters import load_model
from pixelsmith.io.vae import TiledVAE
from pixelsmith.store.canvas import Canvas
from pixelsmith.store.rows import ArrayRows

from recipes.photo.crops import draw_windows
from recipes.photo.semanir import by_photo
from recipes.photo.tables import Table, Values
from recipes.tiny_sdxl.commands import ASSETS
from recipes.tiny_sdxl.images import SIDE
from recipes.upscaling.photos import COLUMNS, enlarge, measure

SCALE = 4
DEFAULT = "slider auto"  # what the package ships
THROUGH = "autoencoder of the photograph"
FIGURES = ("psnr", "ssim", "steps")


def judge(seeds: Sequence[int], count: int = 2) -> list[Table]:
    """Enlarge fresh windows four times; the model has seen drawn shapes only.

    Args:
        seeds: Seeds of the windows.
        count: Windows for each seed.
    """
    rows: dict[str, list[dict[str, float]]] = {}
    photos: list[str] = []
    for seed in seeds:
        for number, (key, window) in enumerate(draw_windows(seed, count, SCALE * SIDE).items()):
            photos.append(key)
            for name, image in enlarge(window, SCALE, ASSETS, seed + number, ("auto",)):
                rows.setdefault(name, []).append(measure([image], [window]))
            rows.setdefault(THROUGH, []).append(measure([_through(window)], [window]))
    return [
        Table(
            f"{COLUMNS[figure]}: enlarged {SCALE} times to windows of {SCALE * SIDE} px",
            {name: Values(by_photo([one[figure] for one in found], photos)) for name, found in rows.items()},
            ours=DEFAULT,
            # more detail than the photograph is as wrong as less
            baselines=() if figure == "steps" else ("Lanczos",),
            unit="photographs",
        )
        for figure in FIGURES
    ]


def _through(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Encode and decode a photograph."""
    vae = TiledVAE(load_model(ASSETS, "", device="cpu").vae)
    latents = torch.cat([part for _, part in vae.encode(ArrayRows(photo))], dim=1)
    return np.concatenate([part for _, part in vae.decode(Canvas(latents))])
