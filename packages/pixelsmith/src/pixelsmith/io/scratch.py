# SPDX-License-Identifier: Apache-2.0
"""A folder for what a writer needs meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder(path: Path) -> Generator[Path]:
    """Make an empty folder beside a file that is being written, and take it away afterwards.

    It has a name of its own for every file, so that what a killed run left is found and removed by the next.
    The dot in front keeps readers from taking it for an image.

    Args:
        path: The file.

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
