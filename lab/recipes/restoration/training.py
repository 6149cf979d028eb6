# SPDX-License-Identifier: Apache-2.0
"""Trains the small restoration models, and the convolutional network beside them, on dead leaves."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch
from common_kernels.runtime.cli import OutputPath, say
from common_kernels.runtime.files import write_text
from pytorch_lightning.callbacks import EMAWeightAveraging
from safetensors.torch import load_file, save_file
from semanir import SemanIR
from semanir.weights import SHIPPED
from timm.optim import create_optimizer_v2

from recipes.options import Debug, Processor
from recipes.restoration.crops import DegradedCrops
from recipes.restoration.module import RestorationModule
from recipes.restoration.networks import NAME, WEIGHTS, NetworkName, build, load
from recipes.restoration.tasks import TASKS, TaskName
from recipes.training import Run, fit


def train(
    task: TaskName,
    network: NetworkName = "semanir",
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
        task: What the network learns to undo.
        network: Network to train.
        pool: Pool of dead leaves, from the command 'pool'.
        output: Folder of checkpoints and logs; resumed if it has one.
        max_steps: Optimizer steps in all; may change on resume.
        batch_size: Number of crops per step.
        crop: Side of a clean crop in pixels.
        learning_rate: Peak learning rate of Muon, and of AdamW on vectors.
        init: Weights to start from, instead of random ones.
        ema_decay: Decay of the running mean of the weights.
        decay_fraction: Share of the run with falling learning rate.
        seed: Random seed of weights, crops and degradations.
    """
    torch.set_num_threads(processor.threads)
    pl.seed_everything(seed)
    model = build(network, TASKS[task])
    if init is not None:
        load(model, init)
    optimizer = create_optimizer_v2(model, opt="muon", lr=learning_rate, weight_decay=1e-4)
    module = RestorationModule(model, optimizer, max_steps=max_steps, decay_fraction=decay_fraction)
    mean = EMAWeightAveraging(decay=ema_decay, update_starting_at_step=min(1000, max_steps // 4))
    crops = DegradedCrops(pool, TASKS[task], crop, batch_size, seed)
    fit(module, crops, output, Run(steps=max_steps, log_every=100), mean=mean)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    write_text(output / NAME, network)
    save_file(weights, output / WEIGHTS)


def ship(task: TaskName, run: Path, /, *, debug: Debug = Debug()) -> None:
    """Put the trained weights into the package, as fp16.

    Args:
        task: What the network learnt.
        run: Folder of a finished SemanIR run.
    """
    model = SemanIR(TASKS[task].config())
    model.load_state_dict(load_file(run / WEIGHTS))
    folder = SHIPPED.assets / f"tiny-{task}"
    model.half().save_pretrained(folder)
    (folder / "README.md").unlink()  # the hub's template; the card says more
    say(f"{folder}: {(folder / 'model.safetensors').stat().st_size} bytes")
