# SPDX-License-Identifier: Apache-2.0
"""Base images whose opposite sides join."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pixelsmith.core.engine import run_stage
from pixelsmith.core.model import JobModel
from pixelsmith.core.protocol import StageInterrupted
from pixelsmith.io.margins import Framed
from pixelsmith.io.vae import TiledVAE
from pixelsmith.job.progress import Hooks, JobInterrupted, JobProgress
from pixelsmith.job.spec import JobSpec, margin_of, sized
from pixelsmith.store.canvas import Canvas
from pixelsmith.store.rows import ArrayRows, Pixels

_STAGE = 2**16  # number of a base image among the stages, so that it shares its noise with no stage
_PASSES = 3  # after which the border hardly changes the image any more


def generate_seamless(model: JobModel, spec: JobSpec, hooks: Hooks) -> tuple[Pixels, Canvas]:
    """Generate a base image whose opposite sides join, as the host pipelines cannot.

    This is plain generation over a canvas that wraps: patches lie across the border like anywhere else.

    Args:
        model: The model with its prompt.
        spec: The job; its slider and start are not read.
        hooks: Callbacks inside the denoising loop.

    Returns:
        The image, ``(H, W, 3)`` uint8, and its latents.

    Raises:
        JobInterrupted: If a hook requested it.
    """
    config = replace(spec.config, slider=0, start="noise")
    latent_size, patch = sized(model, spec.source_size, config)
    denoiser = model.denoiser(spec.source_size, patch)
    if hooks.on_stage is not None:
        hooks.on_stage(-1, denoiser)
    try:
        latents = run_stage(
            denoiser,
            Canvas.zeros(model.channels, *latent_size),
            config,
            scale=1.0,
            stage=_STAGE,
            on_patch=hooks.on_patch,
            on_step=hooks.on_step,
        )
    except StageInterrupted as stopped:
        progress = JobProgress(
            "source", 0, len(spec.sizes), stopped.progress.calls, stopped.progress.calls_total
        )
        raise JobInterrupted(progress, stopped.canvas) from stopped
    return _decode(model, spec, latents), latents


def _decode(model: JobModel, spec: JobSpec, latents: Canvas) -> Pixels:
    """Decode latents without a border: they get that of a grey image, then that of the result."""
    vae = TiledVAE(model.vae, spec.tiling_of(model))
    margin = margin_of(spec.config, model.vae_scale_factor)
    pixels = np.full((*spec.source_size, 3), 127, dtype=np.uint8)
    for _ in range(_PASSES):
        framed = Framed(latents, vae.encode_whole(margin.extend(ArrayRows(pixels))), margin)
        pixels = np.concatenate([rows for _, rows in margin.crop(vae.decode(framed), spec.source_size)])
    return pixels
