# SPDX-License-Identifier: Apache-2.0
"""Loss, schedule and validation around a network."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from pytorch_lightning.utilities.types import LRSchedulerConfigType, OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from semanir.config import SemanIRConfig
from semanir.data.crops import CropOptions
from semanir.metrics import psnr
from semanir.model import SemanIR

Loss = Literal["l1", "charbonnier"]


def charbonnier_loss(restored: Tensor, clean: Tensor, eps: float = 1e-3) -> Tensor:
    """Return the mean of ``sqrt(d ** 2 + eps ** 2)``, in fp32.

    Args:
        restored: Any shape.
        clean: Same shape.
        eps: Difference, on the scale of the images, below which the loss is nearly quadratic.

    Source: Charbonnier et al., ICIP 1994; in restoration, Lai et al., arXiv 1710.01992, Eq. 4.
    """
    return ((restored.float() - clean.float()).square() + eps**2).sqrt().mean()


def step_factor(step: int, *, milestones: Sequence[int], gamma: float, warmup_steps: int) -> float:
    """Return the factor on the learning rate: a linear rise, and a drop at each milestone.

    Args:
        step: Optimiser steps taken.
        milestones: Steps at which the rate is multiplied by ``gamma``, ascending.
        gamma: Factor of a drop.
        warmup_steps: Length of the rise.
    """
    rise = min(1.0, (step + 1) / (warmup_steps + 1))
    return rise * gamma ** bisect_right(list(milestones), step)


class SemanIRModule(pl.LightningModule):
    """Trains a :class:`semanir.SemanIR`.

    Batches are pairs (degraded, clean) of ``(B, C, H, W)`` in [0, 1]. A checkpoint holds all arguments but
    functions, so ``SemanIRModule.load_from_checkpoint(path)`` needs nothing else, unless it trains on with an
    optimiser or scheduler of yours.

    Args:
        preset: Network, see :meth:`semanir.SemanIRConfig.preset`; ``None`` if ``network`` says all.
        network: Fields of :class:`semanir.SemanIRConfig` that differ from the preset.
        loss: ``"l1"`` or ``"charbonnier"``.
        charbonnier_eps: Width of the Charbonnier loss, on the scale of [0, 1].
        learning_rate: Peak learning rate of AdamW.
        betas: Decays of AdamW's means.
        weight_decay: Weight decay of AdamW.
        milestones: Optimiser steps at which the learning rate is multiplied by ``gamma``.
        gamma: Factor of the learning rate at a milestone.
        warmup_steps: Optimiser steps over which the learning rate rises.
        random_k: Numbers of keys to draw from, one per step for all stages and all processes; empty keeps
            the network's own.
        gradient_checkpointing: Compute activations again in the backward pass: less memory, more time.
        compile: Compile the network with ``torch.compile``.
        weights: File (safetensors) or folder of weights to start from.
        optimizer: Function of the parameters that returns the optimiser, instead of AdamW; on the command
            line a class and its arguments: ``--model.optimizer torch.optim.Adam --model.optimizer.lr 1e-3``.
        scheduler: Function of the optimiser that returns its scheduler, stepped after every optimiser step,
            instead of ``milestones``; likewise.

    Source: L1 loss and random k: SemanIR, arXiv 2405.20008, Sec. 4.
    """

    def __init__(
        self,
        preset: str | None = "tiny",
        network: dict[str, Any] | None = None,
        *,
        loss: Loss = "charbonnier",
        charbonnier_eps: float = 1e-3,
        learning_rate: float = 2e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 1e-4,
        milestones: Sequence[int] = (),
        gamma: float = 0.5,
        warmup_steps: int = 0,
        random_k: Sequence[int] = (),
        gradient_checkpointing: bool = False,
        compile: bool = False,
        weights: str | None = None,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        self.optimizer, self.scheduler = optimizer, scheduler
        changes = {key: tuple(v) if isinstance(v, list) else v for key, v in (network or {}).items()}
        make = SemanIRConfig.from_dict if preset is None else partial(_of_preset, preset)
        config = make(changes)
        if loss not in ("l1", "charbonnier"):
            raise ValueError(f"loss must be 'l1' or 'charbonnier', got {loss!r}")
        if list(milestones) != sorted(milestones):
            raise ValueError(f"milestones must ascend, got {list(milestones)}")
        if any(k < 1 for k in random_k):
            raise ValueError(f"random_k must be at least 1, got {list(random_k)}")
        # plain values only: a checkpoint is loaded without running code; weights are in it already
        self.save_hyperparameters(
            {
                "preset": None,
                "network": config.to_dict(),
                "loss": loss,
                "charbonnier_eps": charbonnier_eps,
                "learning_rate": learning_rate,
                "betas": list(betas),
                "weight_decay": weight_decay,
                "milestones": list(milestones),
                "gamma": gamma,
                "warmup_steps": warmup_steps,
                "random_k": list(random_k),
                "gradient_checkpointing": gradient_checkpointing,
                "compile": compile,
            }
        )
        self.network = SemanIR(config)
        self.network.set_gradient_checkpointing(gradient_checkpointing)
        if weights is not None:
            _load(self.network, weights)
        self.mean_psnr = MeanMetric()

    def setup(self, stage: str) -> None:
        """Check that the data suit the network, and compile it, if asked for; the names of its weights stay.

        Raises:
            ValueError: If channels or scale of the data are not those of the network.
        """
        crops = getattr(getattr(self.trainer, "datamodule", None), "crops", None)
        if isinstance(crops, CropOptions):
            _check_data(self.network.config, crops)
        if self.hparams["compile"]:
            self.network.compile()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another network in one sentence.

        Raises:
            ValueError: If its configuration differs.
        """
        stored = checkpoint.get("hyper_parameters", {}).get("network", {})
        own: dict[str, Any] = self.hparams["network"]
        if differing := [name for name in own if name in stored and stored[name] != own[name]]:
            name = differing[0]
            raise ValueError(
                f"the checkpoint is of another network ({name} {stored[name]} instead of {own[name]}): "
                "resume with its own configuration, or take another folder"
            )

    def forward(self, degraded: Tensor) -> Tensor:  # noqa: D102
        return self.network(degraded)

    def draw_k(self, step: int) -> int | None:
        """Return the number of keys of an optimiser step: it follows from the step, so all ranks agree."""
        choices: list[int] = self.hparams["random_k"]
        return random.Random(step).choice(choices) if choices else None

    def loss(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Return the training loss, a scalar in fp32."""
        if self.hparams["loss"] == "l1":
            return (restored.float() - clean.float()).abs().mean()
        return charbonnier_loss(restored, clean, self.hparams["charbonnier_eps"])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:  # noqa: D102
        degraded, clean = batch
        loss = self.loss(self.network(degraded, k=self.draw_k(self.global_step)), clean)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(clean))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Log the PSNR of each image, after rounding to 8 bits; return what was restored."""
        degraded, clean = batch
        restored = (self.network(degraded).float().clamp(0, 1) * 255).round() / 255
        for image, target in zip(restored, clean, strict=True):
            # equal images would make the mean infinite
            self.mean_psnr.update(psnr(image, target).clamp(max=100.0))
        self.log("val/psnr", self.mean_psnr, prog_bar=True, batch_size=len(clean))
        return restored

    def configure_optimizers(self) -> OptimizerLRScheduler:  # noqa: D102
        h = self.hparams
        adamw = partial(
            torch.optim.AdamW,
            lr=h["learning_rate"],
            betas=(h["betas"][0], h["betas"][1]),
            weight_decay=h["weight_decay"],
        )
        schedule = partial(
            step_factor, milestones=h["milestones"], gamma=h["gamma"], warmup_steps=h["warmup_steps"]
        )
        optimizer = (self.optimizer or adamw)(self.network.parameters())
        scheduler = (self.scheduler or partial(LambdaLR, lr_lambda=schedule))(optimizer)
        config: dict[str, Any] = {"scheduler": scheduler, "interval": "step"}
        if isinstance(scheduler, ReduceLROnPlateau):  # its metric is new once an epoch, if at all
            config |= {"interval": "epoch", "monitor": scheduler.monitor, "strict": False}
        return {"optimizer": optimizer, "lr_scheduler": cast("LRSchedulerConfigType", config)}


def _check_data(network: SemanIRConfig, crops: CropOptions) -> None:
    if crops.channels != network.in_channels:
        raise ValueError(
            f"the data have {crops.channels} channels, but the network takes {network.in_channels}: set "
            "data.crops.channels, or model.network.in_channels and out_channels"
        )
    if crops.scale != network.upscale:
        raise ValueError(
            f"the data have scale {crops.scale}, but the network enlarges {network.upscale} times: set "
            "data.crops.scale, or model.network.upscale"
        )


def _of_preset(preset: str, changes: dict[str, Any]) -> SemanIRConfig:
    return SemanIRConfig.preset(preset, **changes)


def _load(network: SemanIR, weights: str) -> None:
    """Take the weights of another network, such as those of x2 for x4; what has another shape stays random.

    Raises:
        ValueError: If nothing fits.
    """
    from semanir.weights import find_folder, load_folder

    _, found = load_folder(find_folder(weights))
    own = network.state_dict()
    fitting = {name: value for name, value in found.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise ValueError(f"{weights} holds weights of another network: none of them fits")
    network.load_state_dict(fitting, strict=False)
