# SPDX-License-Identifier: Apache-2.0
"""Content of a job folder, read without changing it, since the job may be running."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pixelsmith.config import JobConfig
from pixelsmith.io.margins import Margin
from pixelsmith.job.spec import margin_of
from pixelsmith.store.errors import JobFolderError
from pixelsmith.store.folder import FolderStore

__all__ = ["JobState", "StageState", "inspect_job"]

Status = Literal["waiting", "encoding", "denoising", "decoding", "complete"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageState:
    """How far a stage is.

    Attributes:
        size: Height and width in pixels.
        status: Current phase, or the one in which it was stopped.
        encoded: Share of the rows that are encoded.
        step: Number of finished steps.
        num_steps: Number of inference steps; 0 until the loop has begun.
        calls: Patches through the model up to the last checkpoint.
        decoded: Share of the rows that are decoded.
    """

    size: tuple[int, int]
    status: Status
    encoded: float
    step: int
    num_steps: int
    calls: int
    decoded: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """How far a job is.

    Attributes:
        stages: Progress of the stages, in order.
        is_complete: Whether the last image is whole.
        disk_bytes: Size of all files in the folder.
        description: Content of ``job.json``: model, sizes and settings.
    """

    stages: tuple[StageState, ...]
    is_complete: bool
    disk_bytes: int
    description: Mapping[str, Any]

    def to_dict(self) -> dict[str, object]:
        """Return plain values, fit for JSON."""
        return asdict(self)


def inspect_job(folder: Path) -> JobState:
    """Inspect a job folder.

    Raises:
        JobFolderError: If it is not a job folder, or a file in it is damaged.
    """
    found = FolderStore(folder).description if (folder / "job.json").is_file() else None
    if found is None:
        raise JobFolderError(f"{folder} is not a job folder")
    description: Mapping[str, Any] = {**found}
    try:
        factor = int(description["vae_scale_factor"])
        sizes = [(int(height), int(width)) for height, width in description["sizes"]]
        config = JobConfig.from_dict({**description["config"], "batch_size": 1})
    except (KeyError, TypeError, ValueError) as error:
        raise JobFolderError(f"{folder / 'job.json'} does not describe a job: {error!r}") from error
    margin = margin_of(config, factor)
    stages = [_look(FolderStore(folder), number, size, margin) for number, size in enumerate(sizes)]
    done = [stage.status == "complete" for stage in stages]
    return JobState(
        stages=tuple(stages),
        is_complete=all(done) and (folder / "source.json").exists(),
        disk_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        description=description,
    )


def _look(store: FolderStore, number: int, size: tuple[int, int], margin: Margin) -> StageState:
    stage = store.stage(number, read_only=True)
    record, journal = stage.record, stage.journal
    identity: Mapping[str, Any] = journal.identity or {}
    num_steps: int = identity.get("num_steps", 0)
    position = journal.position
    step, calls = (0, 0) if position is None else (position.step, position.calls)
    status: Status = "waiting"
    if record.is_complete:
        status = "complete"
    elif num_steps:
        status = "decoding" if step == num_steps else "denoising"
    elif stage.path.exists():
        status = "encoding"
    return StageState(
        size=size,
        status=status,
        encoded=record.encoded / margin.around((size[0] // margin.factor, 0))[0],
        step=step,
        num_steps=num_steps,
        calls=calls,
        decoded=record.decoded / size[0],
    )
