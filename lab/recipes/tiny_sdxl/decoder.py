# SPDX-License-Identifier: Apache-2.0
"""Trains the decoder further, all else as it is: calm grounds, enlarged images, generated latents.

The squared error of small crops hardly counts what the decoder adds to a calm ground, where an eye sees it
first; the encoder never sees an image that was enlarged, which is what an upscaler gives it; and the decoder
never sees latents that the U-Net denoised, whose errors it shows as grain.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline
from numpy.typing import NDArray
from PIL import Image
from shapeworld import SceneConfig, draw_scene, render
from torch import Tensor
from torch.nn import functional as F

from recipes.tiny_sdxl.autoencoder import CELL, psnr, reconstruct, to_signal
from recipes.tiny_sdxl.images import SIDE, WORLD_SEED, held_out_images
from recipes.tiny_sdxl.progress import Plan, WeightedModule, mean_weights, numbered_generator
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
REPAINTED = 0.8  # share of the steps whose latents are those that the U-Net finds
TIMESTEPS = (1, 51, 101)  # the last three of twenty
WINDOW = 9  # pixels, over which calm is told
CALM = 2.0  # levels of 255: the deviation below which a ground counts as calm
CALM_WEIGHT = 60.0  # of an error on calm ground, against one among edges
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

    def __call__(self, step: int) -> tuple[Tensor, int]:
        """Return ``(B, 3, side, side)`` float32 in [-1, 1], ``BATCHES`` of windows, and the step."""
        rng = np.random.default_rng((self.seed, step))
        side = int(rng.choice(list(BATCHES), p=SIDES))
        shares = VIEWS[side]
        views = rng.choice(list(shares), BATCHES[side], p=list(shares.values()))
        return to_signal(np.stack([self._window(view, side, rng) for view in views])), step

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


class Repainting:
    """Gives latents noise of one of the last timesteps, and returns what the U-Net finds without a prompt.

    Latents go through the U-Net in patches of its native size, as an upscaler has it.

    Args:
        pipeline: Pipeline whose U-Net predicts v.
        seed: Random seed.
    """

    def __init__(self, pipeline: StableDiffusionXLPipeline, seed: int) -> None:
        self.unet, self.alphas, self.seed = pipeline.unet, pipeline.scheduler.alphas_cumprod, seed
        self.prompt, _, self.pooled, _ = pipeline.encode_prompt("", do_classifier_free_guidance=False)

    @torch.no_grad()
    def __call__(self, latents: Tensor, step: int) -> Tensor:
        """Return latents ``(B, C, h, w)`` for some of the steps repainted, for the others as they are."""
        generator = numbered_generator(self.seed, step)
        if torch.rand((), generator=generator) >= REPAINTED:
            return latents
        cells = SIDE // CELL
        B, C, height, width = latents.shape
        rows, columns = height // cells, width // cells
        patches = latents.reshape(B, C, rows, cells, columns, cells).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        timestep = TIMESTEPS[int(torch.randint(len(TIMESTEPS), (), generator=generator))]
        kept = self.alphas[timestep].sqrt()
        lost = (1 - self.alphas[timestep]).sqrt()
        noisy = kept * patches + lost * torch.randn(patches.shape, generator=generator)
        count = len(patches)
        sizes = torch.tensor([[height * CELL, width * CELL, 0, 0, height * CELL, width * CELL]])
        conditions = {
            "text_embeds": self.pooled.expand(count, -1),
            "time_ids": sizes.expand(count, -1).to(patches.dtype),
        }
        prompts = self.prompt.expand(count, -1, -1)
        velocity = self.unet(noisy, timestep, prompts, added_cond_kwargs=conditions).sample
        found = kept * noisy - lost * velocity
        return (
            found.reshape(B, rows, columns, C, cells, cells)
            .permute(0, 3, 1, 4, 2, 5)
            .reshape(B, C, height, width)
        )


def local_variance(images: Tensor) -> Tensor:
    """Return the variance around each pixel, mean over channels, ``(B, 1, H, W)`` of ``(B, C, H, W)``."""
    means, squares = (
        F.avg_pool2d(x, WINDOW, stride=1, padding=WINDOW // 2, count_include_pad=False)
        for x in (images, images.square())
    )
    return (squares - means.square()).clamp(min=0).mean(dim=1, keepdim=True)


def decoder_loss(vae: AutoencoderKL, images: Tensor, spoil: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the squared error, that on calm ground weighing up to ``CALM_WEIGHT`` times more.

    Args:
        vae: Autoencoder.
        images: ``(B, 3, H, W)`` in [-1, 1].
        spoil: What is done to their latents before they are decoded.
    """
    with torch.no_grad():
        latents = spoil(vae.encode(images).latent_dist.mode())
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


def train_decoder(
    folder: Path, leaves: Path, pipeline: StableDiffusionXLPipeline, plan: Plan, seed: int
) -> None:
    """Train the decoder of a pipeline in place, or resume; its weights are then the mean ones.

    Args:
        folder: Folder of checkpoint and logs.
        leaves: ``.npy`` of dead leaves, ``(count, side, side, 3)`` uint8, of at least 128 pixels.
        pipeline: Pipeline in float32; all but its decoder stays as it is.
        plan: Length and speed.
        seed: Random seed of the windows.
    """
    vae, repainting = pipeline.vae, Repainting(pipeline, seed)
    vae.requires_grad_(False)
    for part in (vae.decoder, vae.post_quant_conv):
        part.requires_grad_(True)

    def figures_of(tests: Tensor) -> dict[str, float]:
        images = tests.cpu().numpy()
        ours = reconstruct(vae, images)
        return {"psnr": psnr(ours, images), "calm_error": calm_error(ours, images)}

    def loss_of(batch: tuple[Tensor, int]) -> Tensor:
        images, step = batch
        return decoder_loss(vae, images, lambda latents: repainting(latents, step))

    module = WeightedModule(vae, plan, loss_of, figures_of)
    views = Views(np.load(leaves, mmap_mode="r"), seed)
    tests = torch.from_numpy(held_out_images(100))
    fit(module, views, folder, plan.run(), mean=mean_weights(plan.ema_decay), examples=[tests])
    vae.eval().requires_grad_(False)
