# SPDX-License-Identifier: Apache-2.0
"""Resources of a job: calls of the model, memory, disk and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from common_kernels.runtime.files import check_free_space

from pixelsmith.core.model import JobModel
from pixelsmith.core.plan import estimate_calls
from pixelsmith.io.tiles import MARGIN, largest_tile, sample_windows
from pixelsmith.io.vae import TiledVAE
from pixelsmith.io.writers import disk_needed
from pixelsmith.job.spec import JobSpec, check_spec, margin_of, sized
from pixelsmith.store.canvas import Canvas
from pixelsmith.store.rows import ArrayRows

__all__ = ["Estimate", "StageEstimate", "check_disk", "estimate", "measure_seconds"]

_REDO = 64  # patches between checkpoints of the journal
_FIXED = 96 << 20  # bytes: the cache of noise, and a few patches


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEstimate:
    """One stage.

    Attributes:
        size: Height and width in pixels.
        scale: Enlargement of the sides of the first image.
        guided_steps: Number of guided steps, of ``num_steps``.
        num_steps: Number of inference steps.
        calls: Patches through the model; a mean for random covers.
        tiles: Tiles of the autoencoder for encoding, and again for decoding.
        canvas_bytes: Disk space of the canvases, until the stage is complete.
        image_bytes: Disk space of the image, until the job is complete.
    """

    size: tuple[int, int]
    scale: float
    guided_steps: int
    num_steps: int
    calls: int
    tiles: int
    canvas_bytes: int
    image_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A whole job.

    Attributes:
        stages: Estimates of the stages, in order.
        calls: Patches through the model in all stages; each is evaluated twice with classifier-free guidance.
        memory_bytes: Host memory beyond the model and its activations for a batch of patches or a tile.
        folder_bytes: Largest size of the job folder.
        output_bytes: Largest size of the output, temporary files included; 0 without an output.
        seconds: Duration; ``None`` if nothing was measured, as without stages.
        device: Memory of a GPU in bytes, by what takes it, ``peak`` and ``peak_offloaded`` at most; ``None``
            if nothing was measured, or the model is a function.
    """

    stages: tuple[StageEstimate, ...]
    calls: int
    memory_bytes: int
    folder_bytes: int
    output_bytes: int
    seconds: float | None = None
    device: Mapping[str, int] | None = None

    def to_dict(self) -> dict[str, object]:
        """Return plain values, fit for JSON."""
        return asdict(self)


def estimate(
    model: JobModel, spec: JobSpec, output: Path | None = None, *, measure: bool = False
) -> Estimate:
    """Estimate what a job takes, after checking that it can run.

    Args:
        model: The model.
        spec: The job.
        output: File to write.
        measure: Whether to time a call and a tile of each kind, which takes a few of them, and to compute the
            memory of a GPU.

    Raises:
        TypeError: If the model has no autoencoder.
        ValueError: If a size, the slider, the scheduler or the autoencoder does not fit.
    """
    plans = check_spec(model, spec)
    stages: list[StageEstimate] = []
    memory = 0
    for number, (size, plan) in enumerate(zip(spec.sizes, plans, strict=True)):
        config = spec.stage_config(number)
        latent_size, patch = sized(model, size, config)
        denoiser = model.denoiser(size, patch)
        around = margin_of(config, model.vae_scale_factor).around(latent_size)
        rows, columns = TiledVAE(model.vae, spec.tiling_of(model), slack=2 * MARGIN).spans(*around)
        planes = model.channels * (2 if denoiser.multistep else 1)
        each = spec.dtype.itemsize
        canvases = 2 * planes * each * latent_size[0] * latent_size[1]
        canvases += 4 * model.channels * around[0] * around[1]
        stages.append(
            StageEstimate(
                size=size,
                scale=spec.scale(number),
                guided_steps=plan.guided,
                num_steps=plan.num_steps,
                calls=estimate_calls(config, *latent_size, plan.num_steps),
                tiles=len(rows) * len(columns),
                canvas_bytes=canvases + _REDO * planes * patch[0] * patch[1] * each,
                image_bytes=3 * size[0] * size[1],
            )
        )
        # the enlarged rows of a row of tiles twice as bytes, or its decoded pixels twice in float32
        highest = max((row.stop - row.start) * model.vae_scale_factor for row in rows)
        memory = max(memory, highest * size[1] * 3 * 8 + latent_size[0] * latent_size[1])
    source = 3 * spec.source_size[0] * spec.source_size[1]
    canvas_bytes = max((stage.canvas_bytes for stage in stages), default=0)
    return Estimate(
        stages=tuple(stages),
        calls=sum(stage.calls for stage in stages),
        memory_bytes=max(memory, 3 * source) + _FIXED,
        folder_bytes=source + sum(stage.image_bytes for stage in stages) + canvas_bytes,
        output_bytes=0 if output is None else disk_needed(output, *spec.size),
        seconds=measure_seconds(model, spec, stages) if measure and stages else None,
        device=_device_memory(model, spec) if measure and spec.sizes else None,
    )


def _device_memory(model: JobModel, spec: JobSpec) -> Mapping[str, int] | None:
    """Return the memory of a GPU in the last stage, whose patches are the largest."""
    measure = getattr(model, "device_memory", None)
    if measure is None:
        return None
    config = spec.stage_config(len(spec.sizes) - 1)
    patch = sized(model, spec.size, config)[1]
    return measure(spec.size, patch, config.batch_size, spec.tiling_of(model)).to_dict()


def measure_seconds(model: JobModel, spec: JobSpec, stages: list[StageEstimate]) -> float:
    """Time one call and one tile, and return the duration of the whole job at that rate.

    Generating a base image and writing the output are not included.
    """
    total = 0.0
    tiling = spec.tiling_of(model)
    for number, stage in enumerate(stages):
        config = spec.stage_config(number)
        latent_size, patch = sized(model, stage.size, config)
        denoiser = model.denoiser(stage.size, patch)
        batch = torch.zeros(config.batch_size, model.channels, *patch, device=denoiser.device)
        origins = [(0, 0)] * config.batch_size
        with torch.no_grad():
            call = _timed(lambda x=batch, d=denoiser, o=origins: d.predict(x, 0, o), denoiser.device)
        vae = TiledVAE(model.vae, tiling, slack=2 * MARGIN)
        around = margin_of(config, model.vae_scale_factor).around(latent_size)
        height, width = (min(largest_tile(tiling), side) for side in around)
        canvas = Canvas.zeros(model.channels, height, width)
        grey = ArrayRows(
            np.full((height * model.vae_scale_factor, width * model.vae_scale_factor, 3), 127, dtype=np.uint8)
        )
        encode = _timed(lambda v=vae, p=grey: list(v.encode(p)), model.device)
        decode = _timed(lambda v=vae, c=canvas: list(v.decode(c)), model.device)
        total += stage.calls / config.batch_size * call
        windows = sample_windows(around, tiling) if tiling.statistics == "global" and stage.tiles > 1 else []
        sampled = sum(row.length * column.length for row, column in windows)
        passes = stage.tiles + sampled / (height * width)
        total += passes * (encode + decode)
    return total


def _timed(call: Callable[[], object], device: torch.device) -> float:
    """Return the duration of a call in seconds, after a warm-up call."""
    call()
    start = time.perf_counter()
    call()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - start


def check_disk(found: Estimate, folder: Path | None, output: Path | None = None) -> None:
    """Make sure that a job will not run out of disk space.

    Args:
        found: Estimate of the job.
        folder: Folder of the job, whose present files count as reserved; ``None`` in memory.
        output: File to write.

    Raises:
        FreeSpaceError: If a disk has too little free space.
    """
    places: dict[Path, int] = {}
    if folder is not None:
        held = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        places[folder] = max(0, found.folder_bytes - held)
    if output is not None:
        same = folder is not None and _device(folder) == _device(output)
        place = folder if folder is not None and same else output
        places[place] = places.get(place, 0) + found.output_bytes
    for place, need in places.items():
        check_free_space(place, need)


def _device(path: Path) -> int:
    """Return the number of the file system on which a path lies or will lie."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path.stat().st_dev
