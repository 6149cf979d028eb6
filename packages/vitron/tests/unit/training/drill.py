# SPDX-License-Identifier: Apache-2.0
"""A program that trains stages and kills itself in the middle of them, for tests."""

import gc
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import peft  # noqa: F401  # what each job would import anew, in a process of its own
import pytorch_lightning as pl
import torch
from PIL import Image
from vitron.model.engine import Vitron
from vitron.training import TrainerOptions, fit_stage, load_stage
from vitron.training.stages import Optimisation

Image.init()


class KillAt(pl.Callback):
    """Ends the process at once, as a machine that loses power does."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx + 1 == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def train(model, data, out, stage, *, steps=5, kill_at=None, devices=1, workers=0):
    """Train a small form of a shipped stage."""
    torch.set_num_threads(1)
    chosen = load_stage(stage)
    changes = {"optimisation": Optimisation(lr=1e-3, steps=steps, batch_size=5)}
    if chosen.lora:
        changes["lora"] = chosen.lora.model_copy(update={"rank": 4, "alpha": 8, "dropout": 0.3})
    if chosen.synergy.mode != "off":
        changes["synergy"] = chosen.synergy.model_copy(update={"width": 16, "layers": 1, "heads": 2})
    vitron = Vitron.from_pretrained(model, device="cpu", dtype="float32")
    fit_stage(
        vitron.model,
        vitron.processor,
        chosen.model_copy(update=changes),
        Path(data),
        Path(out),
        seed=3,
        options=TrainerOptions(
            accelerator="cpu",
            devices=str(devices),
            checkpoint_every=2,
            micro_batches=2,
            num_workers=workers,
        ),
        enable_progress_bar=False,
        logger=False,
        callbacks=[] if kill_at is None else [KillAt(kill_at)],
    )


def start(job, rank):
    """Train in a process of its own, a copy of this one; return its number."""
    child = os.fork()
    if child:
        return child
    count = job.get("devices", 1)
    if count > 1:  # what a launcher sets, such as torchrun
        os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(count)}
    try:
        train(**job)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def main(jobs):
    """Run each job in processes that are started before torch works; print how they ended."""
    gc.freeze()  # else every child would copy what it only counts
    for job in jobs:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        children = [start(job, rank) for rank in range(job.get("devices", 1))]
        codes = {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}
        sys.stdout.write(f"{codes.pop() if len(codes) == 1 else codes}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
