# SPDX-License-Identifier: Apache-2.0
"""Fetches the pictures with the Debian archive's own client; needs no rights of an administrator."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from common_kernels.runtime.files import write_bytes

from photoworld.manifest import COMMITTED, Manifest, Picture

__all__ = ["MANIFEST", "ArchiveUnreachableError", "fetch", "is_complete", "root"]

MANIFEST = "manifest.json"
"""File that is written last: a folder that holds it is complete, and it says what is in it."""


class ArchiveUnreachableError(RuntimeError):
    """The Debian archive, or its client, is not there."""


def root() -> Path:
    """Return the folder of the pictures: that in ``PHOTOWORLD``, else one in the user's cache."""
    named = os.environ.get("PHOTOWORLD")
    return Path(named) if named else Path.home() / ".cache" / "photoworld"


def is_complete(folder: Path) -> bool:
    """Return whether a folder holds all pictures of the committed manifest."""
    file = folder / MANIFEST
    return file.exists() and file.read_bytes() == COMMITTED.read_bytes()


def fetch(folder: Path | None = None) -> Path:
    """Fetch all pictures that are not there yet, and compare their digests.

    Args:
        folder: Folder to fill; that of :func:`root` by default.

    Returns:
        The folder.

    Raises:
        ArchiveUnreachableError: If ``apt-get`` or ``dpkg-deb`` is missing or cannot reach the archive.
        ValueError: If a picture is missing in its package or differs from the manifest.
    """
    folder = folder or root()
    if is_complete(folder):
        return folder
    wanted = [picture for picture in Manifest.read().pictures if picture.is_fetched]
    missing = [picture for picture in wanted if not _is_right(folder / picture.key, picture)]
    with TemporaryDirectory() as place:
        unpacked = Path(place)
        for package in dict.fromkeys(picture.package for picture in missing):
            _unpack(package, unpacked / package)
        wrong = [picture.key for picture in missing if not _is_right(unpacked / picture.key, picture)]
        if wrong:
            raise ValueError(
                f"{len(wrong)} pictures differ from the manifest, the first is {wrong[0]}: "
                "use the packages of Debian 12"
            )
        for picture in missing:
            target = folder / picture.key
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(unpacked / picture.key, target)
    write_bytes(folder / MANIFEST, COMMITTED.read_bytes())
    return folder


def _is_right(file: Path, picture: Picture) -> bool:
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == picture.sha256


def _unpack(package: str, folder: Path) -> None:
    """Download a package and unpack it."""
    folder.mkdir(parents=True)
    _call(("apt-get", "--quiet", "download", package), folder)
    for archive in folder.glob("*.deb"):
        _call(("dpkg-deb", "--extract", archive.name, "."), folder)
        archive.unlink()


def _call(command: Iterable[str], folder: Path) -> None:
    command = list(command)
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=900)
    except (OSError, subprocess.SubprocessError) as error:
        raise ArchiveUnreachableError(
            f"photoworld needs Debian's archive: {' '.join(command)} failed ({type(error).__name__})"
        ) from error
