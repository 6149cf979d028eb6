# SPDX-License-Identifier: Apache-2.0
"""A whole job in a folder, from the first picture to the file, resumable after a kill at any moment."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from pixelsmith.core.model import JobModel
from pixelsmith.core.ranks import Ranks
from pixelsmith.io.rows import ArrayRows, Pixels, RawImage, bands
from pixelsmith.io.writers import check_output, write_image
from pixelsmith.job import lock
from pixelsmith.job.estimates import Estimate, check_disk, estimate
from pixelsmith.job.processes import announce, share_canvas
from pixelsmith.job.progress import JobInterrupted, JobProgress, OnProgress, Phase
from pixelsmith.job.source import SourceError, digest, read_source
from pixelsmith.job.spec import JobSpec
from pixelsmith.job.stage import StageRun, crc_of
from pixelsmith.store.errors import JobFolderError
from pixelsmith.store.folder import JobFolder, write_atomically

__all__ = ["Job", "JobResult", "remove_job"]

_SOURCE, _RESULT, _NEXT = "source.npy", "result.json", "source.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What a job made.

    Attributes:
        size: Height and width in pixels.
        calls: Patches through the model, those before a resume included.
        seconds: Of this run.
        outputs: Files written, the picture first.
        image: The raw picture in the job folder.
    """

    size: tuple[int, int]
    calls: int
    seconds: float
    outputs: tuple[Path, ...]
    image: Path

    def to_dict(self) -> dict[str, object]:
        """Return plain values, fit for JSON."""
        plain: dict[str, object] = asdict(self)
        return plain | {"outputs": [str(path) for path in self.outputs], "image": str(self.image)}


class Job:
    """Makes one large picture.

    Args:
        model: The model with its prompt.
        spec: What to compute.
        folder: Keeps everything that is under way; made if it does not exist.
        on_progress: Told about every tile and patch; a true value stops the job.
        preview_every: Seconds between previews, ``preview.png`` in the folder; ``None`` for none.
        durable: Whether each patch is forced to the disk, which a power cut calls for; a killed process alone
            loses nothing either way.
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
        folder: Path,
        *,
        on_progress: OnProgress | None = None,
        preview_every: float | None = None,
        durable: bool = True,
        ranks: Ranks | None = None,
    ) -> None:
        self.model = model
        self.spec = spec
        self.path = folder
        self.on_progress = on_progress
        self.preview_every = preview_every
        self.durable = durable
        self.ranks = ranks

    def check(self, output: Path | None = None) -> Estimate:
        """Find out everything that could go wrong before the first call of the model.

        Returns:
            What the job will take.

        Raises:
            JobFolderError: If the folder belongs to another job, or a disk has too little room.
            ValueError: If a size, a setting or the output does not fit.
            TypeError: If the model has no autoencoder.
            FileNotFoundError: If the folder of the output does not exist.
        """
        if output is not None:
            check_output(output, *self.spec.size)
        found = estimate(self.model, self.spec, output)
        if self.path.exists() and not self.path.is_dir():
            raise JobFolderError(f"{self.path} is a file; name another folder for the job")
        if self.path.is_dir():
            names = {path.name for path in self.path.iterdir()}
            if names - {lock.NAME, "job.json.part"} and "job.json" not in names:
                raise JobFolderError(f"{self.path} is not empty and no job folder; name another one")
            if JobFolder(self.path).description is not None:
                JobFolder(self.path).describe(self.spec.identity(self.model))
        check_disk(found, self.path, output)
        return found

    def run(self, output: Path | None = None, *, notes: Mapping[str, object] | None = None) -> JobResult:
        """Do all that is left, and write the file.

        Args:
            output: The file; its suffix says of which kind. Replaced if it is there.
            notes: Kept as ``command.json``: how the job was asked for.

        Raises:
            JobInterrupted: If the hook asked for it; another call goes on.
            JobFolderError: As :meth:`check`, or if a file of the folder is damaged or in use.
            ValueError: As :meth:`check`, or if the source is damaged.
            OSError: If the output cannot be written.
        """
        begin = time.monotonic()
        self.check(output)
        folder = JobFolder(self.path)
        with lock.hold(self.path):
            folder.describe(self.spec.identity(self.model))
            if notes is not None:
                write_atomically(self.path / "command.json", json.dumps(notes, indent=2).encode())
            try:
                image, calls = self._run_stages(folder)
            except JobInterrupted as stopped:
                if stopped.progress.phase != "denoise":  # from there the others are called back, too
                    self._dismiss()
                raise
            self._dismiss()
            outputs: tuple[Path, ...] = ()
            if output is not None:
                self._tell("write", 0, 1)
                outputs = tuple(write_image(output, image))
                self._tell("write", 1, 1)
            result = JobResult(
                size=self.spec.size, calls=calls, seconds=time.monotonic() - begin, outputs=outputs,
                image=image.path,
            )  # fmt: skip
            write_atomically(self.path / _RESULT, json.dumps(result.to_dict()).encode())
        return result

    def _run_stages(self, folder: JobFolder) -> tuple[RawImage, int]:
        """Return the picture of the last stage, and the patches that all stages took."""
        image, calls = self._source(), 0
        for number in range(len(self.spec.sizes)):
            stage = StageRun(
                self.model, self.spec, folder, number,
                on_progress=self.on_progress, preview_every=self.preview_every, durable=self.durable,
            )  # fmt: skip
            image = self._run_stage(stage, image)
            calls += stage.record.calls
        return image, calls

    def _dismiss(self) -> None:
        if self.ranks is not None:
            announce(self.ranks, self.model, -1)

    def _run_stage(self, stage: StageRun, previous: RawImage) -> RawImage:
        stage.prepare()
        if not stage.record.is_complete:
            clean = stage.encode(previous)
            if self.ranks is not None:
                announce(self.ranks, self.model, stage.number)
                share_canvas(self.ranks, self.model, clean)
            stage.decode(stage.denoise(clean, self.ranks))
            stage.finish()
        return RawImage(stage.image_path)

    def _source(self) -> RawImage:
        """Return the first picture, read or made once and kept raw."""
        path, record = self.path / _SOURCE, self.path / _NEXT
        if record.exists():
            try:
                image = RawImage(path)
            except (ValueError, FileNotFoundError) as error:
                raise JobFolderError(f"{error}; delete {record.name} beside it to make it again") from error
            if crc_of(image, image.height) != json.loads(record.read_text("utf-8"))["checksum"]:
                raise JobFolderError(f"{path} is damaged; delete {record.name} beside it to make it again")
            return image
        self._tell("source", 0, 1)
        pixels = self._make_source()
        if pixels.shape[:2] != self.spec.source_size:
            raise ValueError(
                f"the first picture must be {self.spec.source_size[0]} x {self.spec.source_size[1]} pixels, "
                f"is {pixels.shape[0]} x {pixels.shape[1]}"
            )
        image = RawImage.create(path, *self.spec.source_size)
        for top, band in bands(ArrayRows(pixels), 1024):
            image.write(top, band)
        image.flush()
        write_atomically(record, json.dumps({"checksum": crc_of(image, image.height)}).encode())
        self._tell("source", 1, 1)
        return RawImage(path)

    def _make_source(self) -> Pixels:
        if self.spec.source is None:
            with torch.no_grad():
                return np.asarray(self.model.base_image(self.spec.source_size, self.spec.config.seed))
        if digest(self.spec.source) != self.spec.source_digest:
            raise SourceError(f"{self.spec.source} has changed since the job began; start another job")
        return read_source(self.spec.source, self.spec.max_pixels)

    def _tell(self, phase: Phase, done: int, total: int) -> None:
        stage = len(self.spec.sizes) if phase == "write" else 0
        progress = JobProgress(phase, stage, len(self.spec.sizes), done, total)
        if self.on_progress is not None and self.on_progress(progress) and done < total:
            raise JobInterrupted(progress)


def remove_job(folder: Path) -> None:
    """Delete a job folder: the files of a job, and the folder if nothing else is in it.

    Raises:
        JobFolderError: If it is no job folder, or in use.
    """
    if not (folder / "job.json").exists():
        raise JobFolderError(f"{folder} is no job folder")
    with lock.hold(folder):
        for stage in folder.glob("stage-[0-9][0-9]"):
            shutil.rmtree(stage)
        for name in (_SOURCE, _NEXT, "preview.png", "preview.png.part", "command.json"):
            (folder / name).unlink(missing_ok=True)
    # last, so that a kill leaves what is recognised as a job
    for name in (lock.NAME, _RESULT, "job.json"):
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()
