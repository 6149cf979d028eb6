# SPDX-License-Identifier: Apache-2.0
"""The autoencoder: bound of linear codes, training on small crops, scale of the latents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.tiny_sdxl.images import Kind, held_out_images, load_pool
from recipes.tiny_sdxl.progress import Plan, WeightedModule, mean_weights, numbered_generator
from recipes.training import fit

CELL = 4  # pixels of an image per latent cell, each way
LOG_VARIANCE = -6.0  # of the posterior at the start: unit noise would drown the first minutes
SHARES: tuple[tuple[Kind, float], ...] = (("base", 0.85), ("zoom2", 0.1), ("zoom4", 0.05))


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderOptions:
    """Size and data of the autoencoder.

    Attributes:
        widths: Channels from full to quarter resolution.
        latent_channels: Channels of a latent cell.
        crop: Side of a training crop, pixels.
        batch_size: Crops of a step.
        kl_weight: Weight of the divergence from the unit normal, against the squared error.
        seed: Random seed of weights and crops.
        half: Whether convolutions run in bfloat16; weights stay in float32.
    """

    widths: tuple[int, ...] = (16, 32, 32)
    latent_channels: int = 8
    crop: int = 32
    batch_size: int = 32
    kl_weight: float = 1e-6
    seed: int = 0
    half: bool = False


def build_autoencoder(widths: tuple[int, ...], latent_channels: int, sample_size: int = 64) -> AutoencoderKL:
    """Return the untrained autoencoder, its posterior almost certain from the start."""
    levels = len(widths)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=sample_size,
        mid_block_add_attention=False,
        force_upcast=False,
    )
    with torch.no_grad():
        quant = cast(nn.Conv2d, vae.quant_conv)
        quant.weight[latent_channels:] = 0
        assert quant.bias is not None
        quant.bias[latent_channels:] = LOG_VARIANCE
    return vae


def linear_bound(images: NDArray[np.uint8], tests: NDArray[np.uint8], channels: int) -> float:
    """Return the PSNR in dB of the best linear code of 4 x 4 blocks with so many channels.

    Args:
        images: The code is fitted to these, ``(B, H, W, 3)``.
        tests: And judged on these.
        channels: Numbers kept per block.
    """
    blocks, others = _blocks(images), _blocks(tests)
    mean = blocks.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov((blocks - mean).T))
    kept = vectors[:, -channels:]
    left = others - mean
    left -= left @ kept @ kept.T
    return float(-10 * np.log10(np.mean(left**2)))


def _blocks(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    B, H, W, C = images.shape
    cells = (images / 255).reshape(B, H // CELL, CELL, W // CELL, CELL, C)
    return cells.transpose(0, 1, 3, 2, 4, 5).reshape(-1, CELL * CELL * C)


def to_signal(images: NDArray[np.uint8]) -> Tensor:
    """Turn ``(B, H, W, 3)`` uint8 into ``(B, 3, H, W)`` float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 127.5 - 1


class Crops:
    """Random crops of the pool, turned and mirrored, each step with noise for its latents.

    The batch of a step depends on the seed and the step only.

    Args:
        folder: Folder of the pool.
        options: Size of the batch.
    """

    def __init__(self, folder: Path, options: AutoencoderOptions) -> None:
        self.options = options
        self.pools = [load_pool(folder, kind) for kind, _ in SHARES]

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return ``(B, 3, crop, crop)`` float32 in [-1, 1], and noise like their latents."""
        options = self.options
        rng = np.random.default_rng((options.seed, step))
        kinds = rng.choice(len(SHARES), options.batch_size, p=[share for _, share in SHARES])
        crops: list[NDArray[np.generic]] = []
        for kind in kinds:
            pool = self.pools[kind]
            image = pool[rng.integers(len(pool))]
            top, left = rng.integers(0, image.shape[0] - options.crop + 1, 2)
            crop = image[top : top + options.crop, left : left + options.crop]
            crops.append(np.rot90(crop[:, :: rng.choice([1, -1])], rng.integers(4)))
        cells = options.crop // CELL
        shape = (options.batch_size, options.latent_channels, cells, cells)
        noise = torch.randn(shape, generator=numbered_generator(options.seed, step))
        return to_signal(np.stack(crops).astype(np.uint8)), noise


def autoencoder_loss(
    vae: AutoencoderKL, images: Tensor, noise: Tensor, kl_weight: float, half: bool
) -> Tensor:
    """Return squared error plus a little divergence, of images ``(B, 3, H, W)`` in [-1, 1]."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        moments = cast(nn.Module, vae.quant_conv)(vae.encoder(images)).float()
        mean, log_variance = moments.chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        latents = mean + (log_variance / 2).exp() * noise
        decoded = vae.decoder(cast(nn.Module, vae.post_quant_conv)(latents)).float()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return F.mse_loss(decoded, images) + kl_weight * divergence.mean()


def reconstruct(vae: AutoencoderKL, images: NDArray[np.uint8], batch_size: int = 32) -> NDArray[np.uint8]:
    """Encode to the mean of the posterior and decode again, ``(B, H, W, 3)`` uint8 both."""
    parts: list[NDArray[np.uint8]] = []
    with torch.no_grad():
        for start in range(0, len(images), batch_size):
            signal = to_signal(images[start : start + batch_size]).to(vae.device, vae.dtype)
            decoded = vae.decode(vae.encode(signal).latent_dist.mode()).sample.float()
            levels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
            parts.append(levels.permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)


def psnr(ours: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> float:
    """Return the PSNR in dB of the squared error pooled over all images."""
    error = np.mean((ours.astype(np.float64) - wanted) ** 2)
    return float(10 * np.log10(255**2 / error))


def train_autoencoder(folder: Path, pool: Path, options: AutoencoderOptions, plan: Plan) -> AutoencoderKL:
    """Train the autoencoder, or resume; return it with its mean weights and unit latents.

    Args:
        folder: Folder of checkpoint and logs.
        pool: Folder of the images.
        options: Size and data.
        plan: Length and speed.
    """
    torch.manual_seed(options.seed)
    vae = build_autoencoder(options.widths, options.latent_channels)

    def loss_of(batch: tuple[Tensor, Tensor]) -> Tensor:
        return autoencoder_loss(vae, *batch, options.kl_weight, options.half)

    def figures_of(tests: Tensor) -> dict[str, float]:
        images = tests.cpu().numpy()
        return {"psnr": psnr(reconstruct(vae, images), images)}

    module = WeightedModule(vae, plan, loss_of, figures_of)
    tests = torch.from_numpy(held_out_images(100))
    mean = mean_weights(plan.ema_decay)
    fit(module, Crops(pool, options), folder, plan.run(), mean=mean, examples=[tests])
    vae.eval()
    normalise_latents(vae, load_pool(pool, "base", 2000).astype(np.uint8))
    return vae


def normalise_latents(vae: AutoencoderKL, images: NDArray[np.uint8]) -> None:
    """Give every latent channel mean 0 and deviation 1 over images, without any change to what is decoded.

    The affine change of each channel goes into the 1 x 1 convolutions on both sides of the latents. Diffusion
    starts from noise of mean 0, so a mean of the channels would have to be guessed. ``scaling_factor`` of
    the configuration is then measured again, and is 1 but for rounding.
    """
    latents = encode(vae, images)
    mean = latents.mean(dim=(0, 2, 3))
    deviation = latents.std(dim=(0, 2, 3))
    quant, post = cast(nn.Conv2d, vae.quant_conv), cast(nn.Conv2d, vae.post_quant_conv)
    assert quant.bias is not None
    assert post.bias is not None
    channels = len(mean)
    with torch.no_grad():
        quant.weight[:channels] /= deviation[:, None, None, None]
        quant.bias[:channels] = (quant.bias[:channels] - mean) / deviation
        quant.bias[channels:] -= 2 * deviation.log()
        post.bias += post.weight[:, :, 0, 0] @ mean
        post.weight *= deviation[None, :, None, None]
    vae.register_to_config(scaling_factor=round(1 / float(encode(vae, images).std()), 5))


def encode(vae: AutoencoderKL, images: NDArray[np.uint8], batch_size: int = 32) -> Tensor:
    """Return the means of the posteriors of images ``(B, H, W, 3)``, ``(B, C, H / 4, W / 4)`` float32."""
    with torch.no_grad():
        parts = [
            vae.encode(to_signal(images[start : start + batch_size]).to(vae.device)).latent_dist.mode()
            for start in range(0, len(images), batch_size)
        ]
    return torch.cat(parts)
