# SPDX-License-Identifier: Apache-2.0
"""One process at a time works on a job folder."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pixelsmith.store.errors import JobFolderError

__all__ = ["hold"]

NAME = "lock"


@contextmanager
def hold(folder: Path) -> Generator[None]:
    """Keep other processes away from a job folder; the system releases the lock when this one ends.

    Args:
        folder: Folder of the job; must exist.

    Raises:
        JobFolderError: If another process holds it.
    """
    with (folder / NAME).open("ab") as file:
        try:
            _lock(file)
        except OSError as error:
            raise JobFolderError(f"{folder} is in use by another process; wait for it or stop it") from error
        yield


if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
