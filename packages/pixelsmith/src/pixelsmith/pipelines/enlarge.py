# SPDX-License-Identifier: Apache-2.0
"""The whole way of a picture in RAM: Lanczos, encode, denoise, decode, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pixelsmith.core.config import JobConfig
from pixelsmith.core.engine import run_stage
from pixelsmith.core.model import JobModel
from pixelsmith.core.plan import patch_side
from pixelsmith.core.protocol import Denoiser, OnPatch, OnStep, StageInterrupted
from pixelsmith.io.lanczos import Resized
from pixelsmith.io.rows import ArrayRows, Pixels
from pixelsmith.io.vae import TiledVAE, default_tiling
from pixelsmith.pipelines.sizes import Stage
from pixelsmith.store.canvas import Canvas

_BASE = 2**16  # number of a base picture among the stages, so that its noise is that of no other


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What watches a run.

    Attributes:
        on_stage: Called before each stage, with its denoiser.
        on_patch: Called after every patch; a true value stops.
        on_step: Called after every step; a true value stops.
    """

    on_stage: Callable[[Denoiser], object] | None = None
    on_patch: OnPatch | None = None
    on_step: OnStep | None = None


@dataclass(frozen=True, slots=True)
class Enlarged:
    """A result.

    Attributes:
        pixels: The last finished picture, ``(H, W, 3)``: that of the last stage unless interrupted.
        latents: State of the last stage after its last finished step; ``None`` if there was no stage.
        is_finished: Whether nothing stopped it.
    """

    pixels: Pixels
    latents: Canvas | None
    is_finished: bool


def check_sizes(model: JobModel, sizes: Sequence[tuple[int, int]], config: JobConfig) -> None:
    """Refuse a size before anything is computed.

    Args:
        model: The model.
        sizes: Heights and widths, pixels.
        config: Of the job.

    Raises:
        ValueError: If a side does not divide into cells, or is too small for a patch.
    """
    vae = TiledVAE(model.vae)
    for size in sizes:
        _patch_of(vae.size(*size), config)


def enlarge(
    model: JobModel,
    picture: Pixels,
    stages: Sequence[Stage],
    configs: Sequence[JobConfig],
    hooks: Hooks | None = None,
) -> Enlarged:
    """Enlarge a picture over some stages, all of it in RAM.

    Args:
        model: The model with its prompt.
        picture: ``(H, W, 3)`` uint8, of any size and aspect.
        stages: Sizes, in order.
        configs: Of each stage.
        hooks: What watches.

    Returns:
        The picture of the last stage, or what was finished when a hook stopped it.

    Raises:
        ValueError: If a size does not fit the model.
    """
    hooks = hooks or Hooks()
    latents: Canvas | None = None
    for number, (stage, config) in enumerate(zip(stages, configs, strict=True)):
        vae = TiledVAE(model.vae, default_tiling(model.vae, wrap=config.wraps))
        clean = encode(vae, picture, stage.size)
        denoiser = model.denoiser(stage.size, _patch_of(clean.size, config))
        found = _denoise(denoiser, clean, config, number, stage.scale, hooks)
        if isinstance(found, StageInterrupted):
            return Enlarged(picture, found.canvas, False)
        latents, picture = found, decode(vae, found)
    return Enlarged(picture, latents, True)


def paint_seamless(
    model: JobModel, size: tuple[int, int], config: JobConfig, hooks: Hooks | None = None
) -> Enlarged:
    """Generate a base picture whose opposite sides join, as the host pipelines cannot.

    This is pure generation over a canvas that wraps: patches lie across the border like anywhere else.

    Args:
        model: The model with its prompt.
        size: Height and width, pixels.
        config: Of the job; its slider and start are not read.
        hooks: What watches.

    Returns:
        The picture; black if a hook stopped it.

    Raises:
        ValueError: If the size does not fit the model.
    """
    vae = TiledVAE(model.vae, default_tiling(model.vae, wrap=config.wraps))
    clean = Canvas.zeros(model.channels, *vae.size(*size))
    own = replace(config, slider=0, start="noise")
    denoiser = model.denoiser(size, _patch_of(clean.size, own))
    found = _denoise(denoiser, clean, own, _BASE, 1.0, hooks or Hooks())
    if isinstance(found, StageInterrupted):
        return Enlarged(np.zeros((*size, 3), dtype=np.uint8), found.canvas, False)
    return Enlarged(decode(vae, found), found, True)


def encode(vae: TiledVAE, picture: Pixels, size: tuple[int, int]) -> Canvas:
    """Return the latents of a picture at another size, pixels."""
    canvas = Canvas.zeros(vae.latent_channels, *vae.size(*size))
    for top, latents in vae.encode(Resized(ArrayRows(picture), size, wrap=vae.tiling.wrap)):
        canvas.write(top, 0, latents)
    return canvas


def decode(vae: TiledVAE, latents: Canvas) -> Pixels:
    """Return the picture of some latents, ``(H, W, 3)`` uint8."""
    height, width = (side * vae.factor for side in latents.size)
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    for top, rows in vae.decode(latents):
        pixels[top : top + len(rows)] = rows
    return pixels


def _denoise(
    denoiser: Denoiser, clean: Canvas, config: JobConfig, stage: int, scale: float, hooks: Hooks
) -> Canvas | StageInterrupted:
    if hooks.on_stage is not None:
        hooks.on_stage(denoiser)
    try:
        return run_stage(
            denoiser,
            clean,
            config,
            scale=scale,
            stage=stage,
            on_patch=hooks.on_patch,
            on_step=hooks.on_step,
        )
    except StageInterrupted as stop:
        return stop


def _patch_of(canvas: tuple[int, int], config: JobConfig) -> tuple[int, int]:
    return patch_side(canvas[0], config), patch_side(canvas[1], config)
