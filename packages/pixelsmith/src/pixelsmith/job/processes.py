# SPDX-License-Identifier: Apache-2.0
"""Several processes on one job: process 0 keeps the store, the others compute patches for it."""

from __future__ import annotations

import torch
from torch import Tensor

from pixelsmith.core.engine import run_stage
from pixelsmith.core.model import JobModel
from pixelsmith.core.ranks import Ranks
from pixelsmith.job.spec import JobSpec, check_spec, sized
from pixelsmith.store.canvas import Canvas
from pixelsmith.store.memory import MemoryStage

__all__ = ["announce", "assist", "check_processes", "share_canvas"]


def assist(model: JobModel, spec: JobSpec, ranks: Ranks) -> None:
    """Take part in the loops of a job that process 0 runs; the canvases of this process live in memory.

    Raises:
        StageInterrupted: If the hook of process 0 stops the job.
    """
    check_spec(model, spec)
    check_processes(model)
    while (number := announce(ranks, model, -1)) >= 0:
        config, size = spec.stage_config(number), spec.sizes[number]
        latent_size, patch = sized(model, size, config)
        clean = Canvas.zeros(model.channels, *latent_size)
        share_canvas(ranks, model, clean)
        run_stage(
            model.denoiser(size, patch), clean, config, store=MemoryStage(dtype=spec.dtype),
            ranks=ranks, scale=spec.scale(number), stage=number,
        )  # fmt: skip


def check_processes(model: JobModel) -> None:
    """Refuse a model that only one process can use.

    Raises:
        ValueError: If the prompts of its patches depend on the image, which process 0 alone has.
    """
    if getattr(model, "chooses_prompts", False):
        raise ValueError("patch_prompts='auto' works in one process only; run it without other processes")


def announce(ranks: Ranks, model: JobModel, number: int) -> int:
    """Send the number of the next stage from process 0 to the others; -1 ends the job."""
    found: Tensor = ranks.broadcast(torch.tensor([number], device=model.device))
    return int(found.item())


def share_canvas(ranks: Ranks, model: JobModel, clean: Canvas) -> None:
    """Send the latents of the enlarged image to the other processes."""
    for rows in clean.strips():
        strip = ranks.broadcast(clean.data[:, rows].to(model.device, copy=True))
        if ranks.index:
            clean.data[:, rows] = strip.to(clean.data)
