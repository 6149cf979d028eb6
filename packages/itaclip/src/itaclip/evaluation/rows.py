# SPDX-License-Identifier: Apache-2.0
"""Counts of single images on disk, so that a stopped evaluation goes on where it was."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

_log = logging.getLogger(__name__)


class RowStore:
    """Lines of JSON, one per finished image, in a file per process.

    A line holds the cells of the image's matrix that are not zero. Lines are only ever added, each in one
    piece; a line that a killed process left half is passed over.

    Args:
        folder: Where the files are.
        num_classes: Classes ``K``.
        process: Number of this process, which names the file it adds to.
    """

    def __init__(self, folder: str | Path, num_classes: int, process: int = 0) -> None:
        self.folder, self.num_classes = Path(folder), num_classes
        self.file = self.folder / f"rows-{process}.jsonl"
        self._open = False

    def clear(self) -> None:
        """Forget everything, of all processes."""
        for file in self.folder.glob("rows-*.jsonl"):
            file.unlink()

    def read(self, wanted: Collection[str]) -> tuple[set[str], Tensor]:
        """Add up what was kept.

        Args:
            wanted: Names of the images that count.

        Returns:
            The names that were found, and the sum ``(K, K)``, int64, of their matrices.
        """
        total = torch.zeros(self.num_classes * self.num_classes, dtype=torch.int64)
        found: set[str] = set()
        wanted = set(wanted)
        for file in sorted(self.folder.glob("rows-*.jsonl")):
            for line in file.read_bytes().splitlines():
                parsed = self._parse(line)
                if parsed is None:
                    _log.warning("%s has a line that cannot be used; its image is evaluated anew", file)
                elif parsed[0] in wanted and parsed[0] not in found:
                    found.add(parsed[0])
                    total.index_add_(0, parsed[1], parsed[2])
        return found, total.view(self.num_classes, self.num_classes)  # (K, K)

    def add(self, name: str, matrix: Tensor) -> None:
        """Keep the matrix ``(K, K)`` of one image.

        Raises:
            OSError: If the file cannot be written.
        """
        cells = matrix.flatten().nonzero().flatten()
        row = {"image": name, "cells": cells.tolist(), "pixels": matrix.flatten()[cells].tolist()}
        line = json.dumps(row, separators=(",", ":")).encode() + b"\n"
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab") as file:
            if not self._open and file.tell() and not _ends_a_line(self.file):
                line = b"\n" + line
            file.write(line)
        self._open = True

    def _parse(self, line: bytes) -> tuple[str, Tensor, Tensor] | None:
        try:
            row = json.loads(line)
            name, cells, pixels = row["image"], row["cells"], row["pixels"]
            index, counts = torch.tensor(cells, dtype=torch.int64), torch.tensor(pixels, dtype=torch.int64)
        except (ValueError, TypeError, KeyError, RuntimeError, OverflowError):
            return None
        if not isinstance(name, str) or index.ndim != 1 or index.shape != counts.shape:
            return None
        fits = not len(index) or (int(index.min()) >= 0 and int(index.max()) < self.num_classes**2)
        return (name, index, counts) if fits else None


def _ends_a_line(file: Path) -> bool:
    with file.open("rb") as content:
        content.seek(-1, 2)
        return content.read(1) == b"\n"
