# SPDX-License-Identifier: Apache-2.0
"""Trains the shipped blind colour denoiser, and the convolutional network beside it, on dead leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytorch_lightning as pl
import torch
from common_kernels.runtime.cli import OutputPath, say
from pytorch_lightning.callbacks import EMAWeightAveraging
from safetensors.torch import load_file, save_file
from scipy.ndimage import gaussian_filter
from semanir import SemanIR, SemanIRConfig
from semanir.weights import SHIPPED
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

from recipes.options import Debug, Processor
from recipes.tiny_denoise.conv_unet import ConvUNet
from recipes.tiny_denoise.module import DenoiserModule
from recipes.training import Run, fit

SIGMA_MAX = 55.0
CLEAN_SHARE = 0.12  # of the patches carry no noise at all: a blind net must learn to leave alone
LOW_SHARE, LOW_SIGMA = 0.25, 15.0  # so many more stay below this, where the gate is tightest
# of the crops are grey: three equal channels with one noise. A net that never saw this takes the noise that
# all channels share for texture, and leaves grey photographs as they are
GREY_SHARE = 0.3
GREY_CLEAN_SHARE = 0.35  # in place of CLEAN_SHARE: in one channel fine texture resembles noise more
# of the crops are overlaid with faint grain that belongs to the image (grass, cloth, film), its deviation
# up to GRAIN on the scale of [0, 255]: or else every weak irregular texture would pass for noise
GRAIN_SHARE, GRAIN = 0.25, 10.0


class NoisyCrops:
    """Random crops of the pool with fresh noise; sample ``i`` depends on the seed and ``i`` only.

    Args:
        pool: File of ``(images, height, width, 3)`` uint8.
        size: Side of a crop, in pixels.
        batch_size: Crops per step.
        seed: Seed of everything drawn.
    """

    def __init__(self, pool: Path, size: int, batch_size: int, seed: int) -> None:
        self.pool = np.load(pool, mmap_mode="r")
        self.size, self.batch_size, self.seed = size, batch_size, seed

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the batch of a step: noisy and clean, ``(B, 3, size, size)`` each."""
        first = step * self.batch_size
        noisy, clean = zip(*(self.sample(first + i) for i in range(self.batch_size)), strict=True)
        return torch.stack(noisy), torch.stack(clean)

    def sample(self, number: int) -> tuple[Tensor, Tensor]:
        """Return sample ``number``: noisy and clean, ``(3, size, size)`` fp32, noise not clipped."""
        rng = np.random.default_rng((self.seed, number))
        image = self.pool[rng.integers(len(self.pool))]
        top, left = rng.integers(0, np.array(image.shape[:2]) - self.size + 1)
        crop = image[top : top + self.size, left : left + self.size]
        if rng.random() < 0.5:
            crop = crop.swapaxes(0, 1)
        crop = crop[:: rng.choice([1, -1]), :: rng.choice([1, -1])]
        clean = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))).float() / 255
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        grey = rng.random() < GREY_SHARE
        if grey:
            clean, noise = clean.mean(dim=0, keepdim=True).expand(3, -1, -1), noise[:1]
        if rng.random() < GRAIN_SHARE:
            clean = (clean + grain(rng, self.size)).clamp(0, 1)
        return clean + noise * (draw_sigma(rng, grey) / 255), clean


def draw_sigma(rng: np.random.Generator, grey: bool) -> float:
    """Draw the deviation of the noise, on the scale of [0, 255]: often zero, often low."""
    clean_share = GREY_CLEAN_SHARE if grey else CLEAN_SHARE
    draw = rng.random()
    if draw < clean_share:
        return 0.0
    return rng.uniform(0, LOW_SIGMA if draw < clean_share + LOW_SHARE else SIGMA_MAX)


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


def build(network: Literal["semanir", "conv"]) -> nn.Module:
    """Return the untrained network."""
    model = SemanIR(SemanIRConfig.preset("tiny")) if network == "semanir" else ConvUNet()
    return model.to(memory_format=torch.channels_last)


def train(
    network: Literal["semanir", "conv"],
    /,
    *,
    pool: Path,
    output: OutputPath,
    max_steps: int = 12000,
    batch_size: int = 4,
    crop: int = 64,
    learning_rate: float = 1e-3,
    init: Path | None = None,
    ema_decay: float = 0.999,
    decay_fraction: float = 0.3,
    seed: int = 0,
    processor: Processor = Processor(),
) -> None:
    """Train a network on dead leaves; run again with the same folder to resume.

    Args:
        network: Network to train.
        pool: Pool of dead leaves, from the command 'pool'.
        output: Folder of checkpoints and logs; resumed if it has one.
        max_steps: Optimizer steps in all; may change on resume.
        batch_size: Number of crops per step.
        crop: Side of a crop in pixels.
        learning_rate: Peak learning rate of Muon, and of AdamW on vectors.
        init: Weights to start from, instead of random ones.
        ema_decay: Decay of the running mean of the weights.
        decay_fraction: Share of the run with falling learning rate.
        seed: Random seed of weights, crops and noise.
    """
    torch.set_num_threads(processor.threads)
    pl.seed_everything(seed)
    model = build(network)
    if init is not None:
        model.load_state_dict(load_file(init))
    optimizer = create_optimizer_v2(model, opt="muon", lr=learning_rate, weight_decay=1e-4)
    module = DenoiserModule(model, optimizer, max_steps=max_steps, decay_fraction=decay_fraction)
    mean = EMAWeightAveraging(decay=ema_decay, update_starting_at_step=min(1000, max_steps // 4))
    fit(
        module,
        NoisyCrops(pool, crop, batch_size, seed),
        output,
        Run(steps=max_steps, log_every=100),
        mean=mean,
    )
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, output / "network.safetensors")


def ship(run: Path, /, *, name: str = "tiny-denoise", debug: Debug = Debug()) -> None:
    """Put the trained weights into the package, as fp16.

    Args:
        run: Folder of a finished SemanIR run.
        name: Name of the shipped model.
    """
    model = SemanIR(SemanIRConfig.preset("tiny"))
    model.load_state_dict(load_file(run / "network.safetensors"))
    folder = SHIPPED.assets / name
    model.half().save_pretrained(folder)
    (folder / "README.md").unlink()  # the hub's template; the card says more
    say(f"{folder}: {(folder / 'model.safetensors').stat().st_size} bytes")
