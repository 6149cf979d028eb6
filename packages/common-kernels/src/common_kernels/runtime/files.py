# SPDX-License-Identifier: Apache-2.0
"""Files that are either whole or not there: temporary names, fsync, rename, free space."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "FreeSpaceError",
    "atomic_path",
    "atomic_write",
    "check_free_space",
    "format_bytes",
    "is_temporary",
    "make_folder",
    "remove_temporary_files",
    "write_bytes",
    "write_json",
    "write_text",
]

_SUFFIX = ".part"
_LONGEST_NAME = 200  # bytes; file systems allow 255


class FreeSpaceError(OSError):
    """The file system has too little free space for what is about to be written."""


def make_folder(folder: str | Path) -> Path:
    """Create a folder and its parents, if they are not there.

    Returns:
        The folder.

    Raises:
        OSError: If it cannot be created; the message names the folder and the reason.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise FileExistsError(f"{folder} is a file, but a folder is needed") from error
    except OSError as error:
        raise type(error)(f"the folder {folder} cannot be created: {error.strerror or error}") from error
    return folder


@contextmanager
def atomic_path(path: str | Path, *, sync: bool = True) -> Generator[Path]:
    """Yield a temporary name beside ``path`` and rename it on success: a killed run leaves no half file.

    For libraries that write by name. The folder is created; on an error the temporary file is removed and an
    earlier file of the name stays as it was.

    Args:
        path: File to write; a symbolic link is followed.
        sync: Whether the bytes reach the disk before the rename.

    Yields:
        A name with the suffix of ``path``, in the same folder.

    Raises:
        OSError: If the folder cannot be created or the file not written.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_path(folder / "a.txt") as temporary:
        ...     _ = temporary.write_text("whole")
        >>> (folder / "a.txt").read_text()
        'whole'
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, so no file of that name can be written")
    path = path.resolve() if path.is_symlink() else path
    make_folder(path.parent)
    temporary = path.with_name(_temporary_name(path))
    try:
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777  # what the umask gives
        temporary.unlink()
        yield temporary
        temporary.chmod(mode)  # safetensors lets the owner alone read its files
        if sync:
            _sync(temporary)
        temporary.replace(path)
        if sync:
            _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def atomic_write(path: str | Path, *, sync: bool = True) -> Generator[BinaryIO]:
    """Yield a binary file that takes the place of ``path`` once it is whole.

    Args:
        path: File to write; its folder is created.
        sync: Whether the bytes reach the disk before the rename.

    Yields:
        A file open for writing, reading and seeking.

    Raises:
        OSError: If the folder cannot be created or the file not written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "new" / "a.bin"
        >>> with atomic_write(path) as file:
        ...     _ = file.write(b"whole")
        >>> path.read_bytes()
        b'whole'
    """
    with atomic_path(path, sync=sync) as temporary, temporary.open("w+b") as file:
        yield file


def write_bytes(path: str | Path, data: bytes, *, sync: bool = True) -> None:
    """Write a whole file or nothing."""
    with atomic_write(path, sync=sync) as file:
        file.write(data)


def write_text(path: str | Path, text: str, *, sync: bool = True) -> None:
    """Write a whole UTF-8 file or nothing; line ends stay as they are."""
    write_bytes(path, text.encode("utf-8"), sync=sync)


def write_json(path: str | Path, value: object, *, sync: bool = True) -> None:
    """Write a value as indented JSON, the whole file or nothing.

    Raises:
        TypeError: If JSON cannot hold the value.
        ValueError: If a number is not finite.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, f"{text}\n", sync=sync)


def is_temporary(path: str | Path) -> bool:
    """Return whether a file has a name that :func:`atomic_path` gives."""
    name = Path(path).name
    return name.startswith(".") and Path(name).stem.endswith(_SUFFIX)


def remove_temporary_files(folder: str | Path) -> int:
    """Remove what killed processes left in a folder; files of processes that still run stay.

    Returns:
        How many files were removed.
    """
    removed = 0
    for file in Path(folder).glob(f".*{_SUFFIX}*"):
        if is_temporary(file) and not _is_running(Path(file.stem).stem.rpartition(".")[2]):
            with suppress(OSError):
                file.unlink()
                removed += 1
    return removed


def check_free_space(path: str | Path, num_bytes: int) -> None:
    """Make sure that a file system can take so many bytes more.

    Args:
        path: File or folder to write; it need not exist.
        num_bytes: Bytes to write.

    Raises:
        FreeSpaceError: If fewer are free; the message says how many are needed and how many there are.
    """
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < num_bytes:
        raise FreeSpaceError(
            f"{path} needs {format_bytes(num_bytes)}, but only {format_bytes(free)} are free there"
        )


def format_bytes(num_bytes: float) -> str:
    """Return a number of bytes for people, in powers of 1000.

    Example:
        >>> format_bytes(1_234_567)
        '1.2 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(num_bytes) < 1000:
            return f"{num_bytes:.0f} bytes" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def _temporary_name(path: Path) -> str:
    # the suffix stays last, because libraries choose the format by it
    stem = path.stem.encode()[:_LONGEST_NAME].decode(errors="ignore")
    return f".{stem}.{os.getpid()}{_SUFFIX}{path.suffix}"


def _is_running(pid: str) -> bool:
    if not pid.isdecimal():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    with suppress(OSError):  # some network file systems refuse; the file itself is safe
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
