# SPDX-License-Identifier: Apache-2.0
"""Trains the decoder further, the encoder as it is: calm grounds, enlarged images, colours of no palette.

The squared error of small crops hardly counts what the decoder adds to a calm ground, where an eye sees it
first, and the encoder never sees an image that was enlarged, which is what an upscaler gives it. Latents stay
what they are, so the U-Net does too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from recipes.tiny_sdxl.autoencoder import psnr, reconstruct, to_signal
from recipes.tiny_sdxl.images import SIDE, Kind, held_out_images, load_pool
from recipes.tiny_sdxl.progress import Plan, WeightedModule, mean_weights
from recipes.training import fit

View = Literal["base", "zoom2", "zoom4", "enlarged2", "enlarged4", "leaves"]
SHARES: dict[View, float] = {
    "base": 0.2,
    "zoom2": 0.1,
    "zoom4": 0.2,
    "enlarged2": 0.1,
    "enlarged4": 0.2,
    "leaves": 0.2,
}
BATCH = 8  # windows of 64 pixels
WINDOW = 9  # pixels, over which calm is told
CALM = 2.0  # levels of 255: the deviation below which a ground counts as calm
CALM_WEIGHT = 60.0  # of an error on calm ground, against one among edges
_SIGNAL = 127.5  # levels of 255 per unit of the signal


class Views:
    """Windows of 64 pixels of scenes, of scenes enlarged by Lanczos, and of dead leaves, turned and mirrored.

    The batch of a step depends on the seed and the step only.

    Args:
        pool: Folder of the pool.
        leaves: ``(count, side, side, 3)`` uint8, dead leaves.
        seed: Random seed.
    """

    def __init__(self, pool: Path, leaves: NDArray[np.uint8], seed: int) -> None:
        kinds: tuple[Kind, ...] = ("base", "zoom2", "zoom4")
        self.pools: dict[str, NDArray[np.uint8]] = {
            kind: load_pool(pool, kind).view(np.uint8) for kind in kinds
        }
        self.pools["leaves"] = leaves
        self.seed = seed

    def __call__(self, step: int) -> Tensor:
        """Return ``(BATCH, 3, 64, 64)`` float32 in [-1, 1]."""
        rng = np.random.default_rng((self.seed, step))
        views = rng.choice(list(SHARES), BATCH, p=list(SHARES.values()))
        return to_signal(np.stack([self._window(view, rng) for view in views]))

    def _window(self, view: View, rng: np.random.Generator) -> NDArray[np.uint8]:
        name, times = ("base", int(view[-1])) if view.startswith("enlarged") else (view, 1)
        pool = self.pools[name]
        image = pool[rng.integers(len(pool))]
        if times > 1:
            size = (image.shape[1] * times, image.shape[0] * times)
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
        top, left = rng.integers(0, image.shape[0] - SIDE + 1, 2)
        window = image[top : top + SIDE, left : left + SIDE]
        return np.rot90(window[:, :: rng.choice([1, -1])], rng.integers(4))


def local_variance(images: Tensor) -> Tensor:
    """Return the variance around each pixel, mean over channels, ``(B, 1, H, W)`` of ``(B, C, H, W)``."""
    means, squares = (
        F.avg_pool2d(x, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)
        for x in (images, images.square())
    )
    return (squares - means.square()).clamp(min=0).mean(dim=1, keepdim=True)


def decoder_loss(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Return the squared error, that on calm ground weighing up to ``CALM_WEIGHT`` times more."""
    with torch.no_grad():
        latents = vae.encode(images).latent_dist.mode()
    error = (vae.decode(latents).sample - images).square().mean(dim=1, keepdim=True)
    calm = (CALM / _SIGNAL) ** 2
    weight = 1 + CALM_WEIGHT * calm / (local_variance(images) + calm)
    return (weight * error).mean()


def calm_error(ours: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> float:
    """Return the root mean square error where the image that is wanted is calm, in levels of 255."""
    truth = to_signal(wanted)
    error = (to_signal(ours) - truth).square().mean(dim=1, keepdim=True)
    calm = local_variance(truth) < (CALM / _SIGNAL) ** 2
    return float(error[calm].mean().sqrt()) * _SIGNAL


def train_decoder(folder: Path, pool: Path, leaves: Path, vae: AutoencoderKL, plan: Plan, seed: int) -> None:
    """Train the decoder in place, or resume; its weights are then the mean ones.

    Args:
        folder: Folder of checkpoint and logs.
        pool: Folder of the drawn images.
        leaves: ``.npy`` of dead leaves, ``(count, side, side, 3)`` uint8, of at least 64 pixels.
        vae: Autoencoder in float32; its encoder stays as it is.
        plan: Length and speed.
        seed: Random seed of the windows.
    """
    vae.requires_grad_(False)
    for part in (vae.decoder, vae.post_quant_conv):
        part.requires_grad_(True)

    def figures_of(tests: Tensor) -> dict[str, float]:
        images = tests.cpu().numpy()
        ours = reconstruct(vae, images)
        return {"psnr": psnr(ours, images), "calm_error": calm_error(ours, images)}

    module = WeightedModule(vae, plan, lambda images: decoder_loss(vae, images), figures_of)
    views = Views(pool, np.load(leaves, mmap_mode="r"), seed)
    tests = torch.from_numpy(held_out_images(100))
    fit(module, views, folder, plan.run(), mean=mean_weights(plan.ema_decay), examples=[tests])
    vae.eval().requires_grad_(False)
