# SPDX-License-Identifier: Apache-2.0
"""The folder of a job, with a folder for each of its stages."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from pixelsmith.store.errors import JobFolderError
from pixelsmith.store.journal import Journal
from pixelsmith.store.stores import FolderStore

__all__ = ["JobFolder", "JobFolderError", "write_atomically"]


class JobFolder:
    """A job on disk: ``job.json`` says what it is, ``stage-00`` and so on hold canvases and journals.

    Args:
        path: The folder; made if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    @property
    def description(self) -> dict[str, object] | None:
        """What ``job.json`` holds, or ``None`` before :meth:`describe`.

        Raises:
            JobFolderError: If the file is damaged.
        """
        file = self.path / "job.json"
        if not file.exists():
            return None
        try:
            found = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise JobFolderError(f"{file} is damaged: {error}") from error
        if not isinstance(found, dict):
            raise JobFolderError(f"{file} must hold an object, holds {type(found).__name__}")
        return found

    def describe(self, description: Mapping[str, object]) -> None:
        """Write ``job.json``, or check that it says the same.

        Args:
            description: Plain values: whatever a resume needs, such as configuration, model and prompt.

        Raises:
            JobFolderError: If the folder belongs to another job, with what differs.
        """
        wanted, held = json.loads(json.dumps(description)), self.description
        if held is None:
            text = json.dumps(wanted, indent=2, sort_keys=True) + "\n"
            write_atomically(self.path / "job.json", text.encode())
            return
        differing = [name for name in sorted({*wanted, *held}) if wanted.get(name) != held.get(name)]
        if differing:
            raise JobFolderError(
                f"{self.path} belongs to another job, which differs in {', '.join(differing)}; "
                "use another folder"
            )

    def stage_path(self, number: int) -> Path:
        """Return the folder of a stage, made if it does not exist."""
        path = self.path / f"stage-{number:02d}"
        path.mkdir(exist_ok=True)
        return path

    def store(self, number: int, dtype: torch.dtype = torch.float32) -> FolderStore:
        """Return where the canvases of a stage live."""
        return FolderStore(self.stage_path(number), dtype)

    def journal(
        self, number: int, *, checkpoint_every: int = 64, durable: bool = True, read_only: bool = False
    ) -> Journal:
        """Return the journal of a stage."""
        folder = self.path / f"stage-{number:02d}" if read_only else self.stage_path(number)
        return Journal(folder, checkpoint_every=checkpoint_every, durable=durable, read_only=read_only)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is either as before or complete."""
    draft = path.with_name(path.name + ".part")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
