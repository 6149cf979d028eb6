# SPDX-License-Identifier: Apache-2.0
"""Random crops of the pool, degraded afresh each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from recipes.restoration.tasks import Task, rounded

SURROUNDINGS = 16  # pixels degraded with a crop and cut off: one block of colours in a JPEG
ROUNDED_SHARE = (
    0.4  # of the crops are clipped and rounded, as files are; the protocols of white noise are not
)
GRAIN = 10.0  # largest deviation of faint grain, on the scale of [0, 255]


class DegradedCrops:
    """Pairs of degraded and clean crops; sample ``i`` depends on the seed and ``i`` only.

    Args:
        pool: File of ``(images, height, width, 3)`` uint8.
        task: What degrades them.
        size: Side of a clean crop, in pixels.
        batch_size: Crops per step.
        seed: Seed of everything drawn.
    """

    def __init__(self, pool: Path, task: Task, size: int, batch_size: int, seed: int) -> None:
        self.pool = np.load(pool, mmap_mode="r")
        self.task, self.size, self.batch_size, self.seed = task, size, batch_size, seed

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch of a step: degraded and clean, ``(B, 3, side, side)`` each."""
        first = step * self.batch_size
        degraded, clean = zip(*(self.sample(first + i) for i in range(self.batch_size)), strict=True)
        return torch.stack(degraded), torch.stack(clean)

    def sample(self, number: int) -> tuple[Tensor, Tensor]:
        """Return sample ``number``: degraded and clean, ``(3, side, side)`` fp32."""
        rng = np.random.default_rng((self.seed, number))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        clean = self._clean(rng)
        grey = rng.random() < self.task.grey_share
        if grey:
            clean = clean.mean(dim=0, keepdim=True)
        if rng.random() < self.task.grain_share:
            clean = (clean + grain(rng, clean.shape[-1])).clamp(0, 1)
        degraded = (self.task.grey if grey else self.task.colour)(clean[None], generator)[0]
        if rng.random() < ROUNDED_SHARE:
            degraded = rounded(degraded)
        top, left = self._place(rng)
        scale, size = self.task.scale, self.size
        clean = clean[:, top : top + size, left : left + size]
        top, left, size = top // scale, left // scale, size // scale
        degraded = degraded[:, top : top + size, left : left + size]
        return degraded.expand(3, -1, -1), clean.expand(3, -1, -1)

    def _place(self, rng: np.random.Generator) -> tuple[int, int]:
        """Draw where the crop lies in its surroundings: at their corner in half of the cases."""
        period = self.task.period
        top, left = rng.integers(0, SURROUNDINGS // period + 1, 2) * period
        return (top, left) if rng.random() < 0.5 else (0, 0)

    def _clean(self, rng: np.random.Generator) -> Tensor:
        """Draw a crop with its surroundings, turned and mirrored, ``(3, side, side)`` in [0, 1]."""
        side = self.size + SURROUNDINGS
        image = self.pool[rng.integers(len(self.pool))]
        top, left = rng.integers(0, np.array(image.shape[:2]) - side + 1)
        crop = image[top : top + side, left : left + side]
        if rng.random() < 0.5:
            crop = crop.swapaxes(0, 1)
        crop = crop[:: rng.choice([1, -1]), :: rng.choice([1, -1])]
        return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))).float() / 255


def grain(rng: np.random.Generator, size: int) -> Tensor:
    """Draw a faint irregular texture, ``(1, size, size)`` fp32, in patches that fade out.

    White to slightly soft, with a strength that changes over the image as that of grass or cloth does;
    noise has the same strength everywhere, by which the network can distinguish them.
    """
    fine = gaussian_filter(rng.standard_normal((size, size)), rng.uniform(0, 0.8), mode="wrap")
    where = gaussian_filter(rng.standard_normal((size, size)), rng.uniform(3, size / 6), mode="wrap")
    mask = np.clip(0.5 + 1.5 * where / where.std(), 0, 1)
    strength = rng.uniform(0, GRAIN) / 255
    return torch.from_numpy((fine / fine.std() * mask * strength).astype(np.float32))[None]
