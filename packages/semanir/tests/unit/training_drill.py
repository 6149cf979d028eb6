# SPDX-License-Identifier: Apache-2.0
"""A program of two processes that train together, for tests."""

import os
import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
from semanir.data import CropOptions
from semanir.degradations import GaussianNoise
from semanir.training import SemanIRData, SemanIRModule

NETWORK = {
    "embed_dims": [8, 8],
    "num_heads": [1, 1],
    "depths": [1, 1, 1, 1],
    "conv_blocks": [],
    "window_size": 4,
    "k": 8,
}


class Gradients(pl.Callback):
    """Keeps the gradients and numbers of keys of each step."""

    def __init__(self):
        self.steps, self.keys = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.keys.append(pl_module.draw_k(trainer.global_step))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.steps.append({n: p.grad.clone() for n, p in pl_module.named_parameters() if p.grad is not None})


def train(images, folder, *, devices, batch_size, steps=2):
    """Train a small network; return what the callback kept."""
    torch.set_num_threads(1)
    pl.seed_everything(0, verbose=False)
    module = SemanIRModule("tiny", NETWORK, loss="l1", learning_rate=1e-3, random_k=[2, 4, 8])
    data = SemanIRData(
        train=[str(images)],
        degradation=GaussianNoise(sigma=30),
        crops=CropOptions(patch_size=16),
        batch_size=batch_size,
        num_workers=0,
    )
    kept = Gradients()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_steps=steps,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[kept],
    )
    trainer.fit(module, datamodule=data)
    return kept


def main(images, folder):
    """Train as one of two processes, whose variables a launcher has set; write what came out."""
    kept = train(images, folder, devices=2, batch_size=1)
    result = {"keys": kept.keys, "steps": kept.steps}
    torch.save(result, Path(folder) / f"rank{os.environ['LOCAL_RANK']}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
