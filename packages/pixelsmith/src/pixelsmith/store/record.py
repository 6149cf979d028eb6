# SPDX-License-Identifier: Apache-2.0
"""Progress of one stage of a job outside the denoising loop: encoded, decoded, complete."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from pixelsmith.store.errors import JobFolderError

__all__ = ["StageRecord"]

NAME = "stage.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """Progress of a stage outside the denoising loop.

    Attributes:
        encoded: Number of encoded rows of latents.
        decoded: Number of decoded rows of pixels.
        checksum: CRC-32 of the decoded pixels.
        calls: Number of patches that the denoising loop took, once it is complete.
        is_complete: Whether the image of the stage is complete and its canvases are no longer needed.
    """

    encoded: int = 0
    decoded: int = 0
    checksum: int = 0
    calls: int = 0
    is_complete: bool = False

    @classmethod
    def read(cls, folder: Path) -> StageRecord:
        """Return the record in the folder of a stage, or an empty one if there is none.

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
