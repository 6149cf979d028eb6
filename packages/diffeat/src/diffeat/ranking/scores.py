# SPDX-License-Identifier: Apache-2.0
"""Scores on disk, a line each, so that a ranking that was stopped resumes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common_kernels.runtime.files import write_text

from diffeat.store.errors import StoreError, disk_errors


class ScoreBook:
    """Scores by activations and fold.

    Args:
        folder: Folder in which they are kept; none if ``None``.
        key: Settings that the scores depend on, as JSON values.
        overwrite: Whether to discard scores of an earlier run.

    Raises:
        StoreError: If the folder holds scores of other labels, features or settings.
    """

    def __init__(self, folder: str | Path | None, key: dict[str, Any], *, overwrite: bool = False) -> None:
        self._scores: dict[tuple[str, int], float] = {}
        self._file = None if folder is None else Path(folder) / "scores.jsonl"
        if self._file is None:
            return
        head = json.dumps(key, sort_keys=True)
        if self._file.exists() and not overwrite:
            self._read(head)
            return
        with disk_errors(str(folder)):
            write_text(self._file, f"{head}\n")

    def _read(self, head: str) -> None:
        assert self._file is not None
        lines = self._file.read_text("utf-8").splitlines()
        if not lines or lines[0] != head:
            raise StoreError(
                f"{self._file.parent} holds scores of {_difference(lines, head)}; use another folder, or "
                "overwrite them"
            )
        for line in lines[1:]:
            try:
                row = json.loads(line)
                self._scores[row["names"], row["fold"]] = float(row["score"])
            except (ValueError, KeyError, TypeError):
                continue  # a line cut off by a killed process; its score is computed again

    def get(self, names: Sequence[str], fold: int) -> float | None:
        """The score, or ``None`` if it is not known."""
        return self._scores.get((_joined(names), fold))

    def add(self, names: Sequence[str], fold: int, score: float) -> None:
        """Keep a score.

        Raises:
            StoreFullError: If the disk is full; earlier scores stay.
        """
        self._scores[_joined(names), fold] = score
        if self._file is not None:
            line = json.dumps({"names": _joined(names), "fold": fold, "score": score})
            with disk_errors(str(self._file.parent)), self._file.open("ab") as file:
                # a line cut off by a killed process gets its own line end
                is_cut = file.tell() > 0 and not _ends_a_line(self._file)
                file.write(("\n" if is_cut else "").encode() + f"{line}\n".encode())


def _joined(names: Sequence[str]) -> str:
    return "+".join(sorted(names))


def _ends_a_line(file: Path) -> bool:
    with file.open("rb") as content:
        content.seek(-1, 2)
        return content.read(1) == b"\n"


def _difference(lines: list[str], head: str) -> str:
    try:
        had, wanted = json.loads(lines[0]), json.loads(head)
        names = [name for name in wanted if had.get(name) != wanted[name]]
        return f"other {names[0]}"
    except (ValueError, IndexError, AttributeError):
        return "something else"
