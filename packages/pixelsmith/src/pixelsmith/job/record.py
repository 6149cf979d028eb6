# SPDX-License-Identifier: Apache-2.0
"""How far one stage of a job is outside the loop: encoded, decoded, complete."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from pixelsmith.store.errors import JobFolderError
from pixelsmith.store.folder import write_atomically

__all__ = ["StageRecord"]

NAME = "stage.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """What a stage has finished.

    Attributes:
        encoded: Rows of latent cells that are on the disk.
        decoded: Rows of pixels that are on the disk.
        checksum: CRC-32 of these pixels.
        calls: Patches that the loop took, once it is through.
        is_complete: Whether the picture of the stage is whole, and the canvases are gone.
    """

    encoded: int = 0
    decoded: int = 0
    checksum: int = 0
    calls: int = 0
    is_complete: bool = False

    @classmethod
    def read(cls, folder: Path) -> StageRecord:
        """Return what the folder of a stage says; nothing is finished where it says nothing.

        Raises:
            JobFolderError: If the file is damaged.
        """
        file = folder / NAME
        if not file.exists():
            return cls()
        try:
            values = json.loads(file.read_text("utf-8"))
            if set(values) != {field.name for field in fields(cls)}:
                raise ValueError("other entries than expected")
        except (ValueError, TypeError) as error:
            raise JobFolderError(
                f"{file} is damaged ({error}); delete the folder of the stage to compute it again"
            ) from error
        return cls(**values)

    def write(self, folder: Path, **changes: int) -> StageRecord:
        """Save a record with changes and return it."""
        changed = replace(self, **changes)
        write_atomically(folder / NAME, json.dumps(asdict(changed)).encode())
        return changed
