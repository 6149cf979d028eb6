# SPDX-License-Identifier: Apache-2.0
"""Jobs in a folder, resumable after a kill at any time."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common_kernels.runtime.files import check_free_space, is_temporary, remove_temporary_files, write_json

from pixelsmith.io.metadata import Metadata
from pixelsmith.store import lock
from pixelsmith.store.canvas import Canvas
from pixelsmith.store.errors import JobFolderError
from pixelsmith.store.journal import Journal
from pixelsmith.store.record import NAME as RECORD
from pixelsmith.store.record import StageRecord
from pixelsmith.store.rows import ArrayRows, RawImage, bands
from pixelsmith.store.source import Source

__all__ = ["FolderStage", "FolderStore", "checksum_rows", "remove_job"]

_JOB, _SOURCE, _ALPHA, _SOURCE_RECORD = "job.json", "source.npy", "alpha.npy", "source.json"
_NOTES = ("preview.png", "command.json")
_CANVASES = ("clean", "state-a", "state-b", "estimate-a", "estimate-b")
_SECTIONS = ("config", "model")  # of job.json; what they hold goes by its own name
_WORDS = {"source_digest": "image", "source_size": "image"}  # what a user gave, for what is stored of it
_BAND = 1024


class FolderStage:
    """Canvases, image and progress of one stage in mapped files of a folder.

    Args:
        path: Folder of the stage; must exist unless ``read_only``.
        dtype: Dtype of the canvases, float32 or float16.
        durable: Whether each patch is flushed to the disk, which protects against a power cut; a killed
            process loses nothing either way.
        checkpoint_every: Patches between checkpoints of the journal.
        read_only: Whether nothing is written, for inspecting a stage that may be running.
    """

    def __init__(
        self,
        path: Path,
        *,
        dtype: torch.dtype = torch.float32,
        durable: bool = True,
        checkpoint_every: int = 64,
        read_only: bool = False,
    ) -> None:
        self.path = path
        self.dtype = dtype
        self.durable = durable
        self.checkpoint_every = checkpoint_every
        self.read_only = read_only
        self._journal: Journal | None = None
        self.record = StageRecord.read(path)

    @property
    def journal(self) -> Journal:
        """Journal of the denoising loop, read when it is first asked for."""
        if self._journal is None:
            self._journal = Journal(
                self.path, checkpoint_every=self.checkpoint_every, durable=self.durable,
                read_only=self.read_only,
            )  # fmt: skip
        return self._journal

    def save(self, **changes: int) -> None:
        """Change entries of the record, in memory and in its file."""
        self.record = replace(self.record, **changes)
        write_json(self.path / RECORD, asdict(self.record))

    def has_canvas(self, name: str) -> bool:
        """Return whether a canvas has been made."""
        return (self.path / f"{name}.npy").exists()

    def canvases(
        self, names: Sequence[str], channels: int, height: int, width: int, dtype: torch.dtype | None = None
    ) -> list[Canvas]:
        """Open the files that exist and lay out the others, all of them before anything is computed.

        Raises:
            FreeSpaceError: If the disk is full.
            JobFolderError: If a file has another shape or dtype.
        """
        dtype = dtype or self.dtype
        paths = [self.path / f"{name}.npy" for name in names]
        missing = sum(not path.exists() for path in paths)
        check_free_space(self.path, missing * channels * height * width * torch.finfo(dtype).bits // 8)
        found: list[Canvas] = []
        for path in paths:
            if not path.exists():
                # under another name first: a file of the right name is always whole
                draft = path.with_suffix(".part")
                Canvas.create(draft, channels, height, width, dtype=dtype).flush()
                draft.replace(path)
            canvas = Canvas.open(path)
            if canvas.data.shape != (channels, height, width) or canvas.dtype != dtype:
                raise JobFolderError(
                    f"{path.name} must hold {dtype} {(channels, height, width)}, "
                    f"holds {canvas.dtype} {tuple(canvas.data.shape)}"
                )
            found.append(canvas)
        return found

    def image(self, size: tuple[int, int]) -> ArrayRows:
        """Open the image of the stage, or lay it out, so that the disk cannot be full when it is computed.

        Raises:
            JobFolderError: If the disk is full.
        """
        file = self.path / "image.npy"
        if not file.exists():
            self.save(decoded=0, checksum=0, is_complete=False)
            part = file.with_suffix(".part")
            try:
                RawImage.create(part, *size)
            except OSError as error:
                raise JobFolderError(
                    f"the disk of {self.path} has no room for {size[0]} x {size[1]} pixels: {error.strerror}"
                ) from error
            part.replace(file)
        return RawImage(file, writable=True)

    def finish(self) -> None:
        """Mark the stage as complete and delete its canvases."""
        self.save(is_complete=True)
        for name in ("redo.bin", *(f"{name}.npy" for name in _CANVASES)):
            (self.path / name).unlink(missing_ok=True)


class FolderStore:
    """A job in a folder: ``job.json`` describes it, ``stage-00`` and so on hold its stages.

    Args:
        path: Folder of the job; made when the job is opened.
        durable: See :class:`FolderStage`.
        checkpoint_every: See :class:`FolderStage`.
    """

    def __init__(self, path: Path, *, durable: bool = True, checkpoint_every: int = 64) -> None:
        self.path = path
        self.durable = durable
        self.checkpoint_every = checkpoint_every

    @property
    def description(self) -> dict[str, object] | None:
        """Content of ``job.json``, or ``None`` without a job.

        Raises:
            JobFolderError: If the file is damaged.
        """
        file = self.path / _JOB
        if not file.exists():
            return None
        try:
            found = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise JobFolderError(f"{file} is damaged: {error}") from error
        if not isinstance(found, dict):
            raise JobFolderError(f"{file} must hold an object, holds {type(found).__name__}")
        return found

    def check(self, identity: Mapping[str, object]) -> None:
        """Refuse a folder that holds another job, or files that belong to no job.

        Raises:
            JobFolderError: If it does; the message names the settings that differ.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise JobFolderError(f"{self.path} is a file; name another folder for the job")
        names = {path.name for path in self.path.iterdir() if not is_temporary(path)}
        if names - {lock.NAME} and _JOB not in names:
            raise JobFolderError(f"{self.path} is not empty and not a job folder; name another one")
        wanted, held = json.loads(json.dumps(identity)), self.description
        if held is None:
            return
        differing = {_WORDS.get(name, name) for name in _differing(held, wanted)}
        if differing:
            raise JobFolderError(
                f"{self.path} belongs to another job, which differs in {', '.join(sorted(differing))}; "
                "use another folder or discard it (--overwrite)"
            )

    @contextmanager
    def open(self, identity: Mapping[str, object]) -> Generator[None]:
        """Lock the folder, and write ``job.json`` if it is new.

        Raises:
            JobFolderError: If the folder is refused, or another process uses it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with lock.hold(self.path):
            self.check(identity)
            for folder in (self.path, *self.path.glob("stage-*")):
                remove_temporary_files(folder)  # of a run that was killed
            if self.description is None:
                write_json(self.path / _JOB, identity)
            yield

    def source(self) -> Source | None:
        """Return the first image if it is there.

        Raises:
            JobFolderError: If it is damaged.
        """
        record = self.path / _SOURCE_RECORD
        if not record.exists():
            return None
        try:
            held: dict[str, Any] = json.loads(record.read_text("utf-8"))
            metadata = Metadata.photo_from_dict(held["photo"])
            image = self._read_source(_SOURCE, held["checksum"])
            alpha = None if held["alpha"] is None else self._read_source(_ALPHA, held["alpha"])
        except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
            raise JobFolderError(f"{error}; delete {record.name} beside it to make it again") from error
        return Source(image, alpha, metadata)

    def _read_source(self, name: str, checksum: int) -> ArrayRows:
        image = RawImage(self.path / name)
        if checksum_rows(image, image.height) != checksum:
            raise ValueError(f"{self.path / name} is damaged")
        return image

    def save_source(self, source: Source) -> Source:
        """Write the first image, then its checksums, which mark it as complete."""
        image = self._write_source(_SOURCE, source.image)
        alpha = None if source.alpha is None else self._write_source(_ALPHA, source.alpha)
        held = {
            "checksum": checksum_rows(image, image.height),
            "alpha": None if alpha is None else checksum_rows(alpha, alpha.height),
            "photo": source.metadata.photo_to_dict(),
        }
        self.save(_SOURCE_RECORD, held)
        return Source(image, alpha, source.metadata)

    def _write_source(self, name: str, rows: ArrayRows) -> ArrayRows:
        image = RawImage.create(self.path / name, rows.height, rows.width)
        for top, band in bands(rows, _BAND):
            image.write(top, band)
        image.flush()
        return RawImage(image.path)

    def save(self, name: str, values: Mapping[str, object]) -> None:
        """Write a JSON file beside the job."""
        write_json(self.path / name, values)

    def stage(
        self, number: int, dtype: torch.dtype = torch.float32, *, read_only: bool = False
    ) -> FolderStage:
        """Return the store of a stage."""
        path = self.path / f"stage-{number:02d}"
        if not read_only:
            path.mkdir(parents=True, exist_ok=True)
        return FolderStage(
            path, dtype=dtype, durable=self.durable, checkpoint_every=self.checkpoint_every,
            read_only=read_only,
        )  # fmt: skip


def _differing(held: Mapping[str, Any], wanted: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """Yield the names of the settings that differ; those below a section of their own by their own name."""
    for name in {*held, *wanted}:
        old, new = held.get(name), wanted.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differing(old, new, "" if name in _SECTIONS else f"{name} ")
        else:
            yield f"{section}{name}"


def remove_job(folder: Path) -> None:
    """Delete a job folder: the files of a job, and the folder if nothing else is in it.

    Raises:
        JobFolderError: If it is not a job folder, or in use.
    """
    if not (folder / _JOB).exists():
        raise JobFolderError(f"{folder} is not a job folder")
    with lock.hold(folder):
        for stage in folder.glob("stage-[0-9][0-9]"):
            shutil.rmtree(stage)
        for name in (_SOURCE, _ALPHA, _SOURCE_RECORD, *_NOTES):
            (folder / name).unlink(missing_ok=True)
    remove_temporary_files(folder)
    # last, so that after a kill the folder is still recognised as a job
    for name in (lock.NAME, "result.json", _JOB):
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def checksum_rows(rows: ArrayRows, height: int) -> int:
    """Return the CRC-32 of the first ``height`` rows of an image."""
    crc = 0
    for top, band in bands(rows, _BAND):
        if top >= height:
            break
        crc = zlib.crc32(np.ascontiguousarray(band[: height - top]).data, crc)
    return crc
