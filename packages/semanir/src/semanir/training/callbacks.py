# SPDX-License-Identifier: Apache-2.0
"""Callbacks of the Trainer: sample images, and the network as users load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from common_kernels.runtime.images import write_image
from numpy.typing import NDArray
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn

from semanir.model import SemanIR


class SampleImages(pl.Callback):
    """Shows the first images of each validation: degraded, restored and clean side by side.

    Loggers with ``log_image``, such as those of Weights & Biases, and TensorBoard get them; without such a
    logger they are written to ``samples/`` in the folder of the run.

    Args:
        count: Number of images.
    """

    def __init__(self, count: int = 4) -> None:
        self.count = count

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show the image of a batch."""
        if not trainer.is_global_zero or trainer.sanity_checking or batch_idx >= self.count:
            return
        strip = side_by_side(batch[0][0], outputs[0], batch[1][0])
        name, step = f"val/sample-{batch_idx}", trainer.global_step
        shown = False
        for logger in trainer.loggers:
            add_image = getattr(getattr(logger, "experiment", None), "add_image", None)
            if add_image is not None:
                add_image(name, strip, step, dataformats="HWC")
                shown = True
            elif hasattr(logger, "log_image"):
                logger.log_image(key=name, images=[strip], step=step)  # pyright: ignore[reportAttributeAccessIssue]
                shown = True
        if not shown:
            folder = Path(trainer.default_root_dir) / "samples"
            write_image(strip, folder / f"{batch_idx}-step-{step}.png")


def side_by_side(degraded: Tensor, restored: Tensor, clean: Tensor) -> NDArray[np.uint8]:
    """Return images ``(C, H, W)`` as one, ``(H, 3 W, 3)``, 8-bit; a smaller one is enlarged by pixels."""
    size = clean.shape[-2:]
    parts = [
        F.interpolate(image[None].float(), size=size, mode="nearest")[0].expand(3, -1, -1)
        for image in (degraded, restored, clean)
    ]
    strip = torch.cat(parts, dim=-1).clamp(0, 1).permute(1, 2, 0)
    return (strip * 255).round().to("cpu", torch.uint8).numpy()


class AverageWeights(WeightAveraging):
    """Averages the weights of all steps, the latest most; validation and the saved network use the average.

    The decay rises with the number of steps, so that the average of a short run is not its random start.

    Args:
        decay: Decay that it rises to.

    Source: the rise is that of TensorFlow's ``ExponentialMovingAverage(num_updates=...)``.
    """

    def __init__(self, decay: float = 0.999) -> None:
        def average(means: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
            get_ema_multi_avg_fn(min(decay, (1 + int(count)) / (10 + int(count))))(means, current, count)

        super().__init__(multi_avg_fn=average)


class LastCheckpoint(ModelCheckpoint):
    """Keeps the latest checkpoint as ``last.ckpt`` in the folder of the run, from which it resumes.

    One is written after the last step, too, so that a finished run can be given more steps.

    Args:
        every_n_train_steps: Optimiser steps between checkpoints.
    """

    def __init__(self, every_n_train_steps: int = 1000) -> None:
        super().__init__(
            filename="last", every_n_train_steps=every_n_train_steps, enable_version_counter=False
        )

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Choose the folder, which only the Trainer knows."""
        self.dirpath = str(trainer.default_root_dir)
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write what is due."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        # here, not at the end of training, when averaged weights have replaced the current ones
        if trainer.global_step == trainer.max_steps:
            trainer.save_checkpoint(Path(str(self.dirpath)) / "last.ckpt")


class SaveNetwork(pl.Callback):
    """Writes the network at the end, as ``Restorer.from_pretrained`` reads it.

    Put it behind a callback that averages weights: it saves what that leaves.

    Args:
        folder: Folder below that of the run.
    """

    def __init__(self, folder: str = "model") -> None:
        self.folder = folder

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the folder."""
        network = getattr(pl_module, "network", None)
        if trainer.is_global_zero and isinstance(network, SemanIR) and not trainer.interrupted:
            network.save_pretrained(Path(trainer.default_root_dir) / self.folder)
