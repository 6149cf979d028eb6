# SPDX-License-Identifier: Apache-2.0
"""Results of single items as lines of JSON, one file per process, so that a stopped run resumes."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from common_kernels.runtime.files import make_folder
from common_kernels.runtime.fingerprint import digest_file, digest_settings

__all__ = ["RowStore", "row_name"]

_log = logging.getLogger(__name__)


class RowStore:
    """Rows by name, kept on disk and merged over processes.

    Rows of other settings are in other files: they neither count nor are they lost. Lines are only appended,
    each in one write; a line that a killed process left incomplete is ignored, and its item is done again.

    Args:
        folder: Folder of the files; created with the first row.
        settings: What the rows depend on, as for :func:`common_kernels.runtime.fingerprint.digest_settings`.
        rank: Number of this process, which names the file it appends to.
        prefix: Beginning of the file names.

    Example:
        >>> import tempfile
        >>> store = RowStore(tempfile.mkdtemp(), settings={"model": "tiny"})
        >>> store.append("a.png", {"psnr": 30.5})
        >>> store.read()
        {'a.png': {'psnr': 30.5}}
    """

    def __init__(
        self, folder: str | Path, *, settings: Mapping[str, object], rank: int = 0, prefix: str = "rows"
    ) -> None:
        self.folder = Path(folder)
        self._pattern = f"{prefix}-{digest_settings(settings)[:12]}-*.jsonl"
        self.file = self.folder / self._pattern.replace("*", str(rank))
        self._opened = False

    def read(self, names: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
        """Return the rows of all processes.

        Args:
            names: Names that count; all if ``None``.
        """
        wanted = None if names is None else set(names)
        rows: dict[str, dict[str, Any]] = {}
        for file in sorted(self.folder.glob(self._pattern)):
            for line in file.read_bytes().splitlines():
                parsed = _parse(line)
                if parsed is None:
                    _log.warning("%s has an incomplete line; its item is done again", file)
                elif wanted is None or parsed[0] in wanted:
                    rows.setdefault(*parsed)
        return rows

    def append(self, name: str, row: Mapping[str, object]) -> None:
        """Keep the row of one item.

        Raises:
            OSError: If the file cannot be written.
            TypeError: If JSON cannot hold the row.
        """
        line = json.dumps([name, dict(row)], ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        make_folder(self.folder)
        with self.file.open("ab") as file:
            if not self._opened and file.tell() and not _ends_a_line(self.file):
                line = b"\n" + line
            file.write(line)
        self._opened = True

    def clear(self) -> None:
        """Discard the rows of these settings, of all processes."""
        for file in self.folder.glob(self._pattern):
            file.unlink()


def row_name(name: str, *files: Path) -> str:
    """Return the name of a row about files: another one once the contents of one of them have changed.

    Args:
        name: Name of the item.
        files: Files that the row depends on; those that are missing have no part in the name.
    """
    return " ".join((name, *(digest_file(file) for file in files if file.is_file())))


def _parse(line: bytes) -> tuple[str, dict[str, Any]] | None:
    try:
        parsed: object = json.loads(line)
    except ValueError:
        return None
    match parsed:
        case [str(name), dict(row)]:
            return name, cast("dict[str, Any]", row)
        case _:
            return None


def _ends_a_line(file: Path) -> bool:
    with file.open("rb") as content:
        content.seek(-1, 2)
        return content.read(1) == b"\n"
