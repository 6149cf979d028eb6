# SPDX-License-Identifier: Apache-2.0
"""One process at a time works on a job folder."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pixelsmith.store.errors import JobFolderError

__all__ = ["hold"]

NAME = "lock"


@contextmanager
def hold(folder: Path) -> Generator[None]:
    """Keep other processes away from a job folder; the system releases the lock when this one ends.

    Args:
        folder: Folder of the job; must exist.

    Raises:
        JobFolderError: If another process holds it, or the file system has no locks.
    """
    lock = FileLock(folder / NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise JobFolderError(f"{folder} is in use by another process; wait for it or stop it") from error
    except NotImplementedError as error:
        raise JobFolderError(f"the file system of {folder} has no locks; use one on another disk") from error
    try:
        yield
    finally:
        lock.release()
