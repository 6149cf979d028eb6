# SPDX-License-Identifier: Apache-2.0
"""A scratch folder for writers."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder(path: Path) -> Generator[Path]:
    """Make an empty folder beside a file that is being written, and remove it afterwards.

    It has a name of its own for every file, so that the next run finds and removes what a killed run left.
    The leading dot hides it from readers that list images.

    Args:
        path: Output file.

    Yields:
        The folder, on the disk of the file.
    """
    folder = path.with_name(f".{path.name.removeprefix('.')}.scratch")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
