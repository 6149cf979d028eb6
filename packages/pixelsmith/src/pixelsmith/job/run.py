# SPDX-License-Identifier: Apache-2.0
"""A whole job, from the first image to the file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from common_kernels.runtime.files import make_folder

from pixelsmith.core.model import JobModel
from pixelsmith.core.protocol import Progress
from pixelsmith.core.ranks import Ranks
from pixelsmith.io.metadata import Metadata
from pixelsmith.io.writers import check_output, write_image
from pixelsmith.job.base import generate_seamless
from pixelsmith.job.estimates import Estimate, check_disk, estimate
from pixelsmith.job.processes import announce, check_processes, share_canvas
from pixelsmith.job.progress import Hooks, JobInterrupted, JobProgress, OnProgress, Phase
from pixelsmith.job.source import digest_pixels, fit_pixels, read_source
from pixelsmith.job.spec import JobSpec, check_spec
from pixelsmith.job.stage import StageRun
from pixelsmith.store.canvas import Canvas
from pixelsmith.store.protocol import JobStore
from pixelsmith.store.rows import ArrayRows, Pixels
from pixelsmith.store.source import Source

__all__ = ["Job", "JobResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """The result of a job.

    Attributes:
        size: Height and width in pixels.
        calls: Patches through the model, those before a resume included.
        seconds: Duration of this run.
        outputs: Files written, the image first.
        image: The image; its ``array`` is ``(H, W, 3)`` uint8, mapped from the job folder if there is one.
        latents: Latents of the last stage; ``None`` in a folder, which deletes them, and without a stage.
    """

    size: tuple[int, int]
    calls: int
    seconds: float
    outputs: tuple[Path, ...]
    image: ArrayRows
    latents: Canvas | None

    def to_dict(self) -> dict[str, object]:
        """Return plain values, fit for JSON, without the image."""
        return {
            "size": list(self.size),
            "calls": self.calls,
            "seconds": self.seconds,
            "outputs": [str(path) for path in self.outputs],
        }


class Job:
    """Makes one large image.

    Args:
        model: The model with its prompt.
        spec: Settings of the job.
        store: Store of all intermediate results: a :class:`pixelsmith.store.FolderStore` is resumable, a
            :class:`pixelsmith.store.MemoryStore` is lost with the process.
        image: Image to enlarge, ``(H, W, 3)`` uint8, instead of a file that the spec names.
        on_progress: Called after every tile and patch; a true value stops the job.
        hooks: Callbacks inside the denoising loop.
        preview_every: Seconds between previews, ``preview.png`` in the folder; ``None`` for none.
        ranks: Processes that share the patches; this one is number 0, the others call ``assist``.

    Example:
        >>> from pixelsmith import JobConfig
        >>> JobSpec(sizes=((128, 128),), config=JobConfig(patch=8), source_size=(64, 64)).scale(0)
        2.0
    """

    def __init__(
        self,
        model: JobModel,
        spec: JobSpec,
        store: JobStore,
        *,
        image: Pixels | None = None,
        on_progress: OnProgress | None = None,
        hooks: Hooks | None = None,
        preview_every: float | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        if image is not None and spec.source is not None:
            raise ValueError(f"image and spec.source={spec.source} cannot both be given; leave one out")
        if ranks is not None:
            check_processes(model)
        self.model = model
        self.spec = spec if image is None else replace(spec, source_digest=digest_pixels(image))
        self.store = store
        self.image = image
        self.on_progress = on_progress
        self.hooks = hooks or Hooks()
        self.preview_every = preview_every
        self.ranks = ranks
        self._last: ArrayRows | None = None
        self._photo: Source | None = None
        self._latents: Canvas | None = None

    def check(self, output: Path | None = None) -> Estimate:
        """Check every setting before the first call of the model.

        Returns:
            The resources that the job will take.

        Raises:
            JobFolderError: If the folder belongs to another job, or a disk has too little free space.
            ValueError: If a size, a setting or the output does not fit.
            TypeError: If the model has no autoencoder.
            NotADirectoryError: If the folder of the output is a file.
        """
        if output is not None:
            check_output(output, *self.spec.size)
        found = estimate(self.model, self.spec, output)
        if self.store.path is not None:
            self.store.check(self.spec.identity(self.model))
        check_disk(found, self.store.path, output)
        return found

    def run(self, output: Path | None = None, *, notes: Mapping[str, object] | None = None) -> JobResult:
        """Run everything that is not finished, and write the file.

        Args:
            output: Output file, whose suffix decides the format; replaced if it exists.
            notes: Options of the user, kept as ``command.json``.

        Raises:
            JobInterrupted: If a hook requested it; another call resumes a job in a folder.
            JobFolderError: If the folder belongs to another job, is damaged or in use, or a disk has too
                little free space.
            ValueError: If a size, a setting or the output does not fit, or the source is damaged.
            OSError: If the output cannot be written.
        """
        begin = time.monotonic()
        if self.store.path is None and output is None:
            check_spec(self.model, self.spec)
        else:
            self.check(output)
        # describing the model has a cost, and a job in memory cannot be confused with another
        with self.store.open({} if self.store.path is None else self.spec.identity(self.model)):
            if notes is not None:
                self.store.save("command.json", notes)
            image, calls = self._run_stages()
            outputs: tuple[Path, ...] = ()
            if output is not None:
                self._report("write", 0, 1)
                make_folder(output.parent)
                photo = self._photo or Source(image)
                outputs = tuple(write_image(output, image, metadata=self._metadata(photo), alpha=photo.alpha))
                self._report("write", 1, 1)
            result = JobResult(
                size=self.spec.size, calls=calls, seconds=time.monotonic() - begin, outputs=outputs,
                image=image, latents=self._latents if self.store.path is None else None,
            )  # fmt: skip
            self.store.save("result.json", result.to_dict())
        return result

    def _run_stages(self) -> tuple[ArrayRows, int]:
        """Return the image of the last stage, and the patches that all stages took."""
        calls = 0
        try:
            self._photo = self._source()
            self._last = self._photo.image
            for number in range(len(self.spec.sizes)):
                stage = StageRun(
                    self.model, self.spec, self.store.stage(number, self.spec.dtype), number,
                    on_progress=self.on_progress, hooks=self.hooks, preview_every=self.preview_every,
                )  # fmt: skip
                self._last = self._run_stage(stage, self._last)
                calls += stage.store.record.calls
        except JobInterrupted as stopped:
            stopped.image = self._last
            if stopped.progress.phase != "denoise":  # from there the others are called back, too
                self._dismiss()
            raise
        self._dismiss()
        return self._last, calls

    def _dismiss(self) -> None:
        if self.ranks is not None:
            announce(self.ranks, self.model, -1)

    def _run_stage(self, stage: StageRun, previous: ArrayRows) -> ArrayRows:
        image = stage.prepare()
        if not stage.store.record.is_complete:
            clean = stage.encode(previous)
            if self.ranks is not None:
                announce(self.ranks, self.model, stage.number)
                share_canvas(self.ranks, self.model, clean)
            self._latents = stage.denoise(clean, self.ranks)
            stage.decode(self._latents, image, previous)
            stage.store.finish()
        return image

    def _metadata(self, photo: Source) -> Metadata:
        """Return how the image was made, and what belonged to the photo."""
        settings = self.spec.identity(self.model)
        model: Mapping[str, object] = self.model.describe()
        about = {"prompt": model.get("prompt"), "seed": self.spec.config.seed, "model": self.model.name}
        return replace(photo.metadata, settings={**about, "settings": settings})

    def _source(self) -> Source:
        """Return the first image, read or generated once and kept."""
        found = self.store.source()
        if found is not None:
            return found
        self._report("source", 0, 1)
        source = self._make_source()
        size = source.image.height, source.image.width
        if size != self.spec.source_size:
            raise ValueError(
                f"the first image must be {self.spec.source_size[0]} x {self.spec.source_size[1]} pixels, "
                f"is {size[0]} x {size[1]}"
            )
        image = self.store.save_source(source)
        self._report("source", 1, 1)
        return image

    def _make_source(self) -> Source:
        spec = self.spec
        if self.image is not None:
            return Source(ArrayRows(fit_pixels(self.image, spec.source_size, spec.fit)))
        if spec.source is not None:
            return read_source(
                spec.source, spec.source_digest, spec.source_size, spec.fit, max_pixels=spec.max_pixels
            )
        if spec.is_given:
            raise ValueError("the job begins with an image in memory; give image= again")
        if any(spec.config.wraps):
            pixels, self._latents = generate_seamless(self.model, spec, self._base_hooks())
            return Source(ArrayRows(pixels))
        with torch.no_grad():
            return Source(ArrayRows(np.asarray(self.model.base_image(spec.source_size, spec.config.seed))))

    def _base_hooks(self) -> Hooks:
        """Return the hooks of a base image that is denoised in patches."""
        own = self.hooks

        def on_patch(progress: Progress) -> bool:
            own_progress = JobProgress(
                "source", 0, len(self.spec.sizes), progress.calls, progress.calls_total, progress.step,
                progress.num_steps,
            )  # fmt: skip
            stops = own.on_patch is not None and bool(own.on_patch(progress))
            return stops or (self.on_progress is not None and bool(self.on_progress(own_progress)))

        return replace(own, on_patch=on_patch)

    def _report(self, phase: Phase, done: int, total: int) -> None:
        stage = len(self.spec.sizes) if phase == "write" else 0
        progress = JobProgress(phase, stage, len(self.spec.sizes), done, total)
        if self.on_progress is not None and self.on_progress(progress) and done < total:
            raise JobInterrupted(progress)
