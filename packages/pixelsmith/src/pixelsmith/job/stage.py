# SPDX-License-Identifier: Apache-2.0
"""One stage of a job: from an image to a larger one, each phase resumable."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from common_kernels.runtime.files import write_json

from pixelsmith.core.engine import run_stage
from pixelsmith.core.model import JobModel
from pixelsmith.core.protocol import OnStep, Progress, StageInterrupted
from pixelsmith.core.ranks import Ranks
from pixelsmith.io.corrections import REACH, correct_rows
from pixelsmith.io.lanczos import Resized
from pixelsmith.io.margins import Framed
from pixelsmith.io.tiles import MARGIN
from pixelsmith.io.upscaled import Upscaled, Upscaler
from pixelsmith.io.vae import TiledVAE
from pixelsmith.job.preview import PreviewWriter, fit_colours
from pixelsmith.job.progress import Hooks, JobInterrupted, JobProgress, OnProgress, Phase
from pixelsmith.job.spec import JobSpec, margin_of, sized
from pixelsmith.store.canvas import Canvas
from pixelsmith.store.errors import JobFolderError
from pixelsmith.store.folder import checksum_rows
from pixelsmith.store.protocol import StageStore
from pixelsmith.store.rows import ArrayRows, Pixels, Rows

__all__ = ["StageRun"]


class StageRun:
    """One stage in its store.

    Args:
        model: The model.
        spec: The job.
        store: Store of the stage.
        number: Number of the stage.
        on_progress: Called after every tile and patch.
        hooks: Callbacks inside the denoising loop.
        preview_every: Seconds between previews; ``None`` for none.
    """

    def __init__(
        self,
        model: JobModel,
        spec: JobSpec,
        store: StageStore,
        number: int,
        *,
        on_progress: OnProgress | None = None,
        hooks: Hooks | None = None,
        preview_every: float | None = None,
    ) -> None:
        self.model = model
        self.spec = spec
        self.store = store
        self.number = number
        self.on_progress = on_progress
        self.hooks = hooks or Hooks()
        self.config = spec.stage_config(number)
        self.size = spec.sizes[number]
        self.latent_size, self.patch = sized(model, self.size, self.config)
        self.vae = TiledVAE(model.vae, spec.tiling_of(model), slack=2 * MARGIN)
        self.margin = margin_of(self.config, model.vae_scale_factor)
        self._frame: Canvas | None = None
        self.previews = store.path if preview_every is not None else None
        self.preview_every = preview_every or 0.0

    def prepare(self) -> ArrayRows:
        """Allocate the image of the stage, so that the disk cannot be full when it is computed.

        Raises:
            JobFolderError: If the disk is full, or the image has changed since it was written.
        """
        image, record = self.store.image(self.size), self.store.record
        if (image.height, image.width) != self.size:
            raise JobFolderError(
                f"{self.store.path}/image.npy must be {self.size[0]} x {self.size[1]} pixels, is "
                f"{image.height} x {image.width}; delete the folder of the stage to compute it again"
            )
        if checksum_rows(image, record.decoded) != record.checksum:
            raise JobFolderError(
                f"{self.store.path}/image.npy is damaged: it differs from what was decoded; delete the "
                "folder of the stage to compute it again"
            )
        return image

    def enlarge(self, previous: Rows) -> Rows:
        """Return the image of the stage before at the size of this one, enlarged as its rows are read."""
        upscaler: Upscaler | None = getattr(self.model, "upscaler", None)
        if upscaler is not None:
            previous = Upscaled(previous, upscaler, wrap=self.config.wraps)
        return Resized(previous, self.size, wrap=self.config.wraps)

    def encode(self, previous: Rows) -> Canvas:
        """Enlarge and encode an image; resumable.

        Args:
            previous: Image of the stage before.

        Returns:
            Its latents, without the margin that is encoded with it.

        Raises:
            JobInterrupted: If the hook requested it.
        """
        store = self.store
        if not store.has_canvas("clean"):
            store.save(encoded=0)
        size = self.margin.around(self.latent_size)
        (frame,) = store.canvases(("clean",), self.model.channels, *size, torch.float32)
        if store.record.encoded < frame.height:
            rows = self.margin.extend(self.enlarge(previous))
            on_tile = self._on_tile("encode")
            for top, latents in self.vae.encode(rows, on_tile, start=store.record.encoded):
                frame.write(top, 0, latents)
                frame.flush()
                store.save(encoded=top + latents.shape[1])
        look = getattr(self.model, "look", None)
        if look is not None:
            look(previous)
        self._frame, clean = frame, self.margin.inside(frame)
        if self.previews is not None and not (self.previews / _COLOURS).exists():
            fitted = fit_colours(clean, previous)
            write_json(self.previews / _COLOURS, fitted.tolist())
        return clean

    def denoise(self, clean: Canvas, ranks: Ranks | None = None) -> Canvas:
        """Run the denoising loop; resumable.

        Raises:
            JobInterrupted: If a hook requested it.
        """
        hooks, denoiser = self.hooks, self.model.denoiser(self.size, self.patch)
        if hooks.on_stage is not None:
            hooks.on_stage(self.number, denoiser)

        calls = 0

        def on_patch(progress: Progress) -> bool:
            nonlocal calls
            calls = progress.calls
            stops = hooks.on_patch is not None and bool(hooks.on_patch(progress))
            asked = self.on_progress is not None and bool(self.on_progress(self._denoising(progress)))
            return stops or asked

        try:
            canvas = run_stage(
                denoiser,
                clean,
                self.config,
                store=self.store,
                on_patch=on_patch,
                on_step=self._on_step(),
                ranks=ranks,
                scale=self.spec.scale(self.number),
                stage=self.number,
            )
        except StageInterrupted as stopped:
            raise JobInterrupted(self._denoising(stopped.progress), stopped.canvas) from stopped
        journal = self.store.journal
        if journal is not None and journal.position is not None:
            calls = journal.position.calls  # a resumed loop may have no patch left
        self.store.save(calls=calls)
        return canvas

    def decode(self, canvas: Canvas, image: ArrayRows, previous: Rows) -> None:
        """Decode the result of the loop into the image of the stage; resumable.

        Args:
            canvas: Latents after the last step.
            image: Image of the stage.
            previous: Image of the stage before, for its colours and where it is calm.

        Raises:
            JobInterrupted: If the hook requested it.
        """
        store, start = self.store, self.store.record.decoded
        if start == image.height:
            return
        for top, rows in self._decoded(canvas, previous, start):
            image.write(top, rows)
            image.flush()
            checksum = zlib.crc32(np.ascontiguousarray(rows).data, store.record.checksum)
            store.save(decoded=top + len(rows), checksum=checksum)

    def _decoded(self, canvas: Canvas, previous: Rows, start: int) -> Iterator[tuple[int, Pixels]]:
        """Yield rows of the image, see :meth:`TiledVAE.decode`, from ``start`` on."""
        assert self._frame is not None  # encode returned its inside
        colours, grain = self.config.colour_fix == "wavelet", self.config.grain
        corrects = colours or grain > 0
        # the corrections of a row depend on rows above it, which are kept as they are after theirs only
        first = max(0, start - REACH) if corrects else start
        framed = Framed(canvas, self._frame, self.margin)
        rows = self.vae.decode(framed, self._on_tile("decode"), start=self.margin.above + first)
        decoded = self.margin.crop(rows, self.size)
        if not corrects:
            return decoded
        return correct_rows(
            decoded, self.enlarge(previous), colours=colours, grain=grain, start=start,
            wraps=self.config.wraps[1],
        )  # fmt: skip

    def _denoising(self, progress: Progress) -> JobProgress:
        return JobProgress(
            "denoise", self.number, len(self.spec.sizes), progress.calls, progress.calls_total,
            progress.step, progress.num_steps,
        )  # fmt: skip

    def _on_tile(self, phase: Phase) -> Callable[[int, int], None]:
        """Return a callback for tiles; it stops the job by raising through the generator that calls it."""

        def on_tile(done: int, total: int) -> None:
            progress = JobProgress(phase, self.number, len(self.spec.sizes), done, total)
            if self.on_progress is not None and self.on_progress(progress):
                raise JobInterrupted(progress)

        return on_tile

    def _on_step(self) -> OnStep | None:
        """Return the callback for a new state: the preview of a folder, then the hook."""
        if self.previews is None or not (self.previews / _COLOURS).exists():
            return self.hooks.on_step
        colours = np.array(json.loads((self.previews / _COLOURS).read_text("utf-8")))
        writer = PreviewWriter(self.previews.parent / "preview.png", colours, self.preview_every)
        hook = self.hooks.on_step

        def on_step(progress: Progress, canvas: Canvas) -> bool:
            writer.show(canvas)
            return hook is not None and bool(hook(progress, canvas))

        return on_step


_COLOURS = "colours.json"
