# SPDX-License-Identifier: Apache-2.0
"""The folder of a store, on a disk or any file system of fsspec, and the locks of its writers."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import fsspec
from common_kernels.runtime.files import make_folder, write_bytes
from filelock import FileLock, Timeout

from diffeat.store.errors import StoreError

_log = logging.getLogger(__name__)
_SILENCE = 2.0  # seconds of waiting that nobody is told of


class Place:
    """Files of a store.

    Args:
        url: Folder, or address that fsspec opens.
        options: Options of the file system.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.url = str(url).rstrip("/")
        self.options = dict(options or {})
        found = cast("Any", fsspec).core.url_to_fs(self.url, **self.options)
        self._files: Any = found[0]
        self._root = str(found[1]).rstrip("/")
        protocols = self._files.protocol
        self.is_local = "file" in ((protocols,) if isinstance(protocols, str) else protocols)

    def path(self, name: str) -> str:
        """Path of a file in its file system."""
        return f"{self._root}/{name}"

    def exists(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        self._files.invalidate_cache()
        return bool(self._files.exists(self.path(name)))

    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            FileNotFoundError: If there is none.
        """
        return cast("bytes", self._files.cat_file(self.path(name)))

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file or nothing."""
        if self.is_local:
            write_bytes(self.path(name), data)
        else:  # object stores write files atomically
            self._files.pipe_file(self.path(name), data)

    def remove(self, name: str) -> None:
        """Remove a file or a folder, if it is there."""
        if self.exists(name):
            self._files.rm(self.path(name), recursive=True)

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder below this one; none if there is no such folder."""
        if not self.exists(folder):
            return []
        found = cast("list[Any]", self._files.ls(self.path(folder), detail=False))
        return sorted(str(path).rsplit("/", 1)[-1] for path in found)

    @contextmanager
    def locked(self, name: str) -> Generator[None]:
        """Hold a lock that ends with the process, however that ends; other file systems have none.

        Args:
            name: File of the lock.

        Raises:
            StoreError: If the file system has no locks.
        """
        if not self.is_local:
            yield
            return
        make_folder(self._root)
        lock = FileLock(self.path(name))
        try:
            try:
                lock.acquire(timeout=_SILENCE)
            except Timeout:
                _log.warning("another process writes to %s: waiting until it has finished", self.url)
                lock.acquire()
        except NotImplementedError as error:
            raise StoreError(
                f"the file system of {self.url} has no locks: use a folder on another disk"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def remove_empty(self) -> None:
        """Remove the folder if nothing but locks is in it."""
        folder = Path(self._root)
        if self.is_local and folder.is_dir() and all(each.suffix == ".lock" for each in folder.iterdir()):
            for each in folder.iterdir():
                each.unlink(missing_ok=True)
            folder.rmdir()
