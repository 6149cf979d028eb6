# SPDX-License-Identifier: Apache-2.0
"""Several processes on one job: the first keeps the folder, the others take patches off its hands."""

from __future__ import annotations

import torch
from torch import Tensor

from pixelsmith.core.engine import run_stage
from pixelsmith.core.model import JobModel
from pixelsmith.core.ranks import Ranks
from pixelsmith.job.spec import JobSpec, check_spec, sized
from pixelsmith.store.canvas import Canvas
from pixelsmith.store.stores import MemoryStore

__all__ = ["announce", "assist", "share_canvas"]


def assist(model: JobModel, spec: JobSpec, ranks: Ranks) -> None:
    """Take part in the loops of a job that process 0 runs; the canvases of this process live in RAM.

    Raises:
        StageInterrupted: If the hook of process 0 stops the job.
    """
    check_spec(model, spec)
    while (number := announce(ranks, model, -1)) >= 0:
        config, size = spec.stage_config(number), spec.sizes[number]
        cells, patch = sized(model, size, config)
        clean = Canvas.zeros(model.channels, *cells)
        share_canvas(ranks, model, clean)
        run_stage(
            model.denoiser(size, patch), clean, config, canvas_store=MemoryStore(dtype=spec.dtype),
            ranks=ranks, scale=spec.scale(number), stage=number,
        )  # fmt: skip


def announce(ranks: Ranks, model: JobModel, number: int) -> int:
    """Tell the others which stage comes, or hear it from process 0; -1 ends the job."""
    found: Tensor = ranks.broadcast(torch.tensor([number], device=model.device))
    return int(found.item())


def share_canvas(ranks: Ranks, model: JobModel, clean: Canvas) -> None:
    """Give the latents of the enlarged picture to the other processes."""
    for rows in clean.strips():
        strip = ranks.broadcast(clean.data[:, rows].to(model.device, copy=True))
        if ranks.index:
            clean.data[:, rows] = strip.to(clean.data)
