# SPDX-License-Identifier: Apache-2.0
"""Trains the probe on drawn scenes of all sizes, blurred and noisy as generated images are."""

from __future__ import annotations

import numpy as np
import pytorch_lightning as pl
import torch
from common_kernels.runtime.cli import OutputPath
from pytorch_lightning.callbacks import EMAWeightAveraging
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter
from shapeworld import Rendering, SceneConfig, draw_scene, render
from shapeworld.grid import WHOLE
from timm.optim import create_optimizer_v2
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from recipes.options import Processor
from recipes.probes.network import NAMES, Probe
from recipes.training import Run, fit

CONFIGS = (SceneConfig(num_things=(0.4, 0.2, 0.2, 0.1, 0.05, 0.05)), SceneConfig.preset("simple"))
# one in so many scenes is of the held-out pairs: the judge must know what its models have never seen
NOVEL_SHARE = 0.15
ZOOM_SHARE = 0.25  # seen through a window half as wide: things twice as large, as in larger images
BLUR, NOISE = 0.9, 0.04
ONLY_NONE = -100  # label of an image with several things, ignored by the loss


class ProbeScenes:
    """Worn images with the label of every pixel, and of the only thing.

    Args:
        batch_size: Images per step.
        seed: Seed of the world and of the wear.
        side: Side of an image in pixels.
    """

    def __init__(self, batch_size: int, seed: int, side: int = 64) -> None:
        self.batch_size, self.seed, self.side = batch_size, seed, side

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Return the batch of a step."""
        first = step * self.batch_size
        return default_collate([self.sample(first + i) for i in range(self.batch_size)])

    def sample(self, index: int) -> dict[str, Tensor]:
        """Return one image, ``(3, side, side)``, with its labels."""
        rng = np.random.default_rng((self.seed, index, 7))
        split = "novel" if rng.random() < NOVEL_SHARE else "train"
        scene = draw_scene(self.seed, index, split=split, config=CONFIGS[index % len(CONFIGS)])
        window = WHOLE
        if rng.random() < ZOOM_SHARE:
            x, y = rng.random(2) * 0.5
            window = (x, y, x + 0.5, y + 0.5)
        rendering = render(scene, self.side, window=window)
        return {"image": worn(rendering, rng), **labels(rendering)}


def worn(rendering: Rendering, rng: np.random.Generator) -> Tensor:
    """Return the image, ``(3, H, W)`` fp32 in [0, 1], a little blurred, noisy and off in contrast."""
    image = rendering.image.astype(np.float32) / 255
    if rng.random() < 0.7:
        image = gaussian_filter(image, (sigma := rng.uniform(0, BLUR), sigma, 0))
        image = image + rng.normal(0, rng.uniform(0, NOISE), image.shape).astype(np.float32)
        image = rng.uniform(0.85, 1.1) * (image - 0.5) + 0.5 + rng.uniform(-0.05, 0.05)
    return torch.from_numpy(np.clip(image, 0, 1).astype(np.float32)).permute(2, 0, 1)


def labels(rendering: Rendering) -> dict[str, Tensor]:
    """Return the masks ``(H, W)`` and the labels of the only thing, int64, by attribute."""
    seen = [
        thing for thing, mask in zip(rendering.scene.things, rendering.visible(), strict=True) if mask.any()
    ]
    result: dict[str, Tensor] = {}
    for key, names in NAMES.items():
        result[f"{key}_pixels"] = torch.from_numpy(rendering.semantic(key)).long()
        only = names.index(getattr(seen[0], key)) if len(seen) == 1 else ONLY_NONE
        result[f"{key}_thing"] = torch.tensor(only)
    return result


class ProbeModule(pl.LightningModule):
    """Cross-entropy over pixels and over images of one thing.

    Args:
        probe: The network.
        max_steps: Optimiser steps in all, for the falling rate.
    """

    def __init__(self, probe: Probe, max_steps: int) -> None:
        super().__init__()
        self.probe, self.max_steps = probe, max_steps

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """Return the loss."""
        opinion = self.probe(batch["image"])
        loss = torch.zeros((), device=self.device)
        for key in NAMES:
            pixels = F.cross_entropy(opinion.pixels[key], batch[f"{key}_pixels"])
            things = F.cross_entropy(opinion.things[key], batch[f"{key}_thing"], ignore_index=ONLY_NONE)
            self.log_dict({f"{key}/pixels": pixels, f"{key}/thing": things}, batch_size=1)
            loss = loss + pixels + 0.3 * torch.nan_to_num(things)  # a batch without single things has none
        return loss

    def configure_optimizers(self) -> dict[str, object]:
        """Muon on matrices, AdamW on the rest; one cycle."""
        optimizer = create_optimizer_v2(self.probe, opt="muon", lr=2e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 2e-3, total_steps=self.max_steps + 1, pct_start=0.1
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def train(
    *,
    output: OutputPath,
    max_steps: int = 3000,
    batch_size: int = 32,
    seed: int = 17,
    workers: int = 0,
    processor: Processor = Processor(),
) -> None:
    """Train the probe that judges generated images; run again with the same folder to resume.

    Args:
        output: Folder of checkpoints and logs; resumed if it has one.
        max_steps: Optimizer steps in all.
        batch_size: Number of images per step.
        seed: Random seed of weights and images.
        workers: Number of processes that draw; 0 draws in this one.
    """
    torch.set_num_threads(processor.threads)
    pl.seed_everything(seed)
    probe = Probe().to(memory_format=torch.channels_last)
    run = Run(steps=max_steps, workers=workers, clip_norm=None)
    mean = EMAWeightAveraging(decay=0.995, update_starting_at_step=max_steps // 4)
    fit(ProbeModule(probe, max_steps), ProbeScenes(batch_size, seed), output, run, mean=mean)
    weights = {
        name: value.half().contiguous()
        for name, value in probe.state_dict().items()
        if value.is_floating_point()
    }
    save_file(weights, output / "probe.safetensors")
