# SPDX-License-Identifier: Apache-2.0
"""One stage of a job: a picture in, a larger picture out, each part of the way resumable."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pixelsmith.core.engine import run_stage
from pixelsmith.core.model import JobModel
from pixelsmith.core.protocol import Progress, StageInterrupted
from pixelsmith.core.ranks import Ranks
from pixelsmith.io.lanczos import Resized
from pixelsmith.io.rows import RawImage, Rows, bands
from pixelsmith.io.vae import TiledVAE
from pixelsmith.job.preview import PreviewWriter, fit_colours
from pixelsmith.job.progress import JobInterrupted, JobProgress, OnProgress, Phase
from pixelsmith.job.record import StageRecord
from pixelsmith.job.spec import JobSpec, sized
from pixelsmith.store.canvas import Canvas
from pixelsmith.store.errors import JobFolderError
from pixelsmith.store.folder import JobFolder, write_atomically

__all__ = ["StageRun", "crc_of"]

_BAND = 1024


class StageRun:
    """One stage in its folder.

    Args:
        model: The model.
        spec: The job.
        folder: Of the job.
        number: Of the stage.
        on_progress: Told about every tile and patch.
        preview_every: Seconds between previews; ``None`` for none.
        durable: See :class:`pixelsmith.store.Journal`.
    """

    def __init__(
        self,
        model: JobModel,
        spec: JobSpec,
        folder: JobFolder,
        number: int,
        *,
        on_progress: OnProgress | None = None,
        preview_every: float | None = None,
        durable: bool = True,
    ) -> None:
        self.model = model
        self.spec = spec
        self.folder = folder
        self.number = number
        self.on_progress = on_progress
        self.preview_every = preview_every
        self.durable = durable
        self.config = spec.stage_config(number)
        self.size = spec.sizes[number]
        self.cells, self.patch = sized(model, self.size, self.config)
        self.path = folder.stage_path(number)
        self.record = StageRecord.read(self.path)
        self.vae = TiledVAE(model.vae, spec.tiling_of(model))

    @property
    def image_path(self) -> Path:
        """The picture of the stage, raw."""
        return self.path / "image.npy"

    def prepare(self) -> None:
        """Lay out the picture to be, so that the disk cannot be full when it is computed.

        Raises:
            JobFolderError: If the disk has no room, or the picture has changed since it was written.
        """
        if self.image_path.exists():
            self._check_image()
            return
        self.record = self.record.write(self.path, decoded=0, checksum=0, is_complete=False)
        part = self.image_path.with_suffix(".part")
        try:
            RawImage.create(part, *self.size)
        except OSError as error:
            raise JobFolderError(
                f"the disk of {self.path} has no room for {self.size[0]} x {self.size[1]} pixels: "
                f"{error.strerror}"
            ) from error
        part.replace(self.image_path)

    def _check_image(self) -> None:
        image = RawImage(self.image_path)
        if (image.height, image.width) != self.size:
            raise JobFolderError(
                f"{self.image_path} must be {self.size[0]} x {self.size[1]} pixels, is {image.height} x "
                f"{image.width}; delete the folder of the stage to compute it again"
            )
        if crc_of(image, self.record.decoded) != self.record.checksum:
            raise JobFolderError(
                f"{self.image_path} is damaged: it differs from what was decoded; delete the folder of the "
                "stage to compute it again"
            )

    def encode(self, previous: Rows) -> Canvas:
        """Enlarge and encode a picture, or go on with it.

        Args:
            previous: The picture of the stage before.

        Returns:
            Its latents.

        Raises:
            JobInterrupted: If the hook asked for it.
        """
        store = self.folder.store(self.number)
        if not (self.path / "clean.npy").exists():
            self.record = self.record.write(self.path, encoded=0)
        (clean,) = store.canvases(("clean",), self.model.channels, *self.cells)
        if self.record.encoded < clean.height:
            rows = Resized(previous, self.size, wrap=self.config.wraps)
            tell = self._teller("encode")
            for top, latents in self.vae.encode(rows, tell, start=self.record.encoded):
                clean.write(top, 0, latents)
                clean.flush()
                self.record = self.record.write(self.path, encoded=top + latents.shape[1])
        colours = self.path / "colours.json"
        if self.preview_every is not None and not colours.exists():
            fitted = fit_colours(clean, previous)
            write_atomically(colours, json.dumps(fitted.tolist()).encode())
        return clean

    def denoise(self, clean: Canvas, ranks: Ranks | None = None) -> Canvas:
        """Run the loop, or go on with it.

        Raises:
            JobInterrupted: If the hook asked for it.
        """
        last: list[Progress] = []

        def on_patch(progress: Progress) -> bool:
            last[:] = [progress]
            return self.on_progress is not None and bool(self.on_progress(self._denoising(progress)))

        journal = self.folder.journal(self.number, durable=self.durable)
        try:
            canvas = run_stage(
                self.model.denoiser(self.size, self.patch),
                clean,
                self.config,
                canvas_store=self.folder.store(self.number, self.spec.dtype),
                journal=journal,
                on_patch=on_patch,
                on_step=self._previewer(),
                ranks=ranks,
                scale=self.spec.scale(self.number),
                stage=self.number,
            )
        except StageInterrupted as stopped:
            raise JobInterrupted(self._denoising(stopped.progress)) from stopped
        position = journal.position
        if position is not None:
            self.record = self.record.write(self.path, calls=position.calls)
        return canvas

    def decode(self, canvas: Canvas) -> None:
        """Decode the result of the loop into the picture of the stage, or go on with it.

        Raises:
            JobInterrupted: If the hook asked for it.
        """
        image = RawImage(self.image_path, writable=True)
        for top, rows in self.vae.decode(canvas, self._teller("decode"), start=self.record.decoded):
            image.write(top, rows)
            image.flush()
            checksum = zlib.crc32(np.ascontiguousarray(rows).data, self.record.checksum)
            self.record = self.record.write(self.path, decoded=top + len(rows), checksum=checksum)

    def finish(self) -> None:
        """Note that the picture is whole, and give the space of the canvases back."""
        self.record = self.record.write(self.path, is_complete=True)
        for name in ("clean.npy", "redo.bin", *(f"{kind}-{side}.npy" for kind in _STATES for side in "ab")):
            (self.path / name).unlink(missing_ok=True)

    def _denoising(self, progress: Progress) -> JobProgress:
        return JobProgress(
            "denoise", self.number, len(self.spec.sizes), progress.calls, progress.calls_total,
            progress.step, progress.num_steps,
        )  # fmt: skip

    def _teller(self, phase: Phase) -> Callable[[int, int], None]:
        """Return what hears about tiles; it stops the job by leaving the generator that calls it."""

        def tell(done: int, total: int) -> None:
            progress = JobProgress(phase, self.number, len(self.spec.sizes), done, total)
            if self.on_progress is not None and self.on_progress(progress):
                raise JobInterrupted(progress)

        return tell

    def _previewer(self) -> Callable[[Progress, Canvas], None] | None:
        file = self.path / "colours.json"
        if self.preview_every is None or not file.exists():
            return None
        colours = np.array(json.loads(file.read_text("utf-8")))
        writer = PreviewWriter(self.folder.path / "preview.png", colours, self.preview_every)
        return lambda progress, canvas: writer.show(canvas)


_STATES = ("state", "estimate")


def crc_of(rows: Rows, height: int) -> int:
    """Return the CRC-32 of the first ``height`` rows of a picture."""
    crc = 0
    for top, band in bands(rows, _BAND):
        if top >= height:
            break
        crc = zlib.crc32(np.ascontiguousarray(band[: height - top]).data, crc)
    return crc
