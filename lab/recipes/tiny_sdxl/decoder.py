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
from shapeworld import SceneConfig, draw_scene, render
from torch import Tensor
from torch.nn import functional as F

from recipes.tiny_sdxl.autoencoder import psnr, reconstruct, to_signal
from recipes.tiny_sdxl.images import SIDE, WORLD_SEED, held_out_images
from recipes.tiny_sdxl.progress import Plan, WeightedModule, mean_weights
from recipes.training import fit

View = Literal["scene", "enlarged2", "enlarged4", "leaves"]
# windows of a step by their side: the statistics of group normalisation are those of the whole image
BATCHES = {64: 8, 128: 2, 256: 1}
SIDES = (0.4, 0.4, 0.2)
VIEWS: dict[int, dict[View, float]] = {
    64: {"scene": 0.5, "enlarged2": 0.1, "enlarged4": 0.2, "leaves": 0.2},
    128: {"scene": 0.4, "enlarged2": 0.1, "enlarged4": 0.3, "leaves": 0.2},
    256: {"scene": 0.4, "enlarged4": 0.6},
}
TIMES = (1, 2, 4)  # sides of scenes, over that of the native size
FIRST = 40_000_000  # number of the first scene; no other pool has them
WINDOW = 9  # pixels, over which calm is told
CALM = 2.0  # levels of 255: the deviation below which a ground counts as calm
CALM_WEIGHT = 20.0  # of an error on calm ground, against one among edges
_SIGNAL = 127.5  # levels of 255 per unit of the signal


class Views:
    """Windows of scenes of several sizes, of enlarged scenes, and of dead leaves, turned and mirrored.

    The batch of a step depends on the seed and the step only.

    Args:
        leaves: ``(count, side, side, 3)`` uint8, dead leaves, of at least 128 pixels.
        seed: Random seed.
    """

    def __init__(self, leaves: NDArray[np.uint8], seed: int) -> None:
        self.leaves, self.seed = leaves, seed

    def __call__(self, step: int) -> Tensor:
        """Return ``(B, 3, side, side)`` float32 in [-1, 1]; side and ``B`` are those of ``BATCHES``."""
        rng = np.random.default_rng((self.seed, step))
        side = int(rng.choice(list(BATCHES), p=SIDES))
        shares = VIEWS[side]
        views = rng.choice(list(shares), BATCHES[side], p=list(shares.values()))
        return to_signal(np.stack([self._window(view, side, rng) for view in views]))

    def _window(self, view: View, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        image = self._image(view, side, rng)
        top, left = rng.integers(0, image.shape[0] - side + 1, 2)
        window = image[top : top + side, left : left + side]
        return np.rot90(window[:, :: rng.choice([1, -1])], int(rng.integers(4)))

    def _image(self, view: View, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return an image of at least ``side`` pixels."""
        if view == "leaves":
            return self.leaves[rng.integers(len(self.leaves))]
        scene = draw_scene(WORLD_SEED, FIRST + int(rng.integers(2**24)), config=SceneConfig.preset("simple"))
        if view == "scene":
            times = rng.choice([times for times in TIMES if times * SIDE >= side])
            return render(scene, int(times) * SIDE).image
        size = int(view[-1]) * SIDE
        small = Image.fromarray(render(scene, SIDE).image)
        return np.asarray(small.resize((size, size), Image.Resampling.LANCZOS))


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


def train_decoder(folder: Path, leaves: Path, vae: AutoencoderKL, plan: Plan, seed: int) -> None:
    """Train the decoder in place, or resume; its weights are then the mean ones.

    Args:
        folder: Folder of checkpoint and logs.
        leaves: ``.npy`` of dead leaves, ``(count, side, side, 3)`` uint8, of at least 128 pixels.
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
    views = Views(np.load(leaves, mmap_mode="r"), seed)
    tests = torch.from_numpy(held_out_images(100))
    fit(module, views, folder, plan.run(), mean=mean_weights(plan.ema_decay), examples=[tests])
    vae.eval().requires_grad_(False)
