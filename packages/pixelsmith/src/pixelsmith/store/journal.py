# SPDX-License-Identifier: Apache-2.0
"""The journal of a stage: a kill at any time loses nothing that was finished.

A step reads one canvas and writes the other, so the first is always intact. The second cannot be: averages
of overlapping patches read what earlier patches wrote, and applying one twice would be wrong. Therefore the
*final* values of a region go to a redo file, with a checksum, before they go to the canvas. Writing them
again changes nothing, so a resume replays the whole redo file over whatever reached the canvas, and continues
behind the last whole record.

``journal.jsonl`` holds one line per checkpoint, each with its own checksum; an incomplete line is dropped.
The redo file begins with the number of lines it belongs to, so a journal that lost more is detected.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pixelsmith.store.canvas import Canvas
from pixelsmith.store.errors import JobFolderError

__all__ = ["Journal", "Position"]

# step, patch, row, column, height, width, bytes of the values, checksum of the values
_RECORD = struct.Struct("<8I")
_CHECK = struct.Struct("<I")
_HEAD = struct.Struct("<4sI")
_MAGIC = b"redo"


@dataclass(frozen=True, slots=True)
class Position:
    """Position of a stage.

    Attributes:
        step: Current step; the number of steps once all are done.
        done: Number of finished patches of this step.
        calls: Number of finished patches of all steps.
        checksums: Checksums of the canvases that the step reads.
    """

    step: int
    done: int
    calls: int
    checksums: tuple[int, ...]


class Journal:
    """Checkpoints and redo records of one stage.

    Args:
        folder: Folder of the stage; must exist.
        checkpoint_every: Patches after which the canvas is flushed and the redo file emptied.
        durable: Whether records are flushed to the disk one by one, which protects against a power cut. A
            killed process loses nothing either way.
        read_only: Whether nothing is written, for inspecting a stage that may be running.

    Raises:
        JobFolderError: If the file is not a journal.
    """

    def __init__(
        self,
        folder: Path,
        *,
        checkpoint_every: int = 64,
        durable: bool = True,
        read_only: bool = False,
    ) -> None:
        if checkpoint_every < 1:
            raise ValueError(f"checkpoint_every must be at least 1, got {checkpoint_every}")
        self.checkpoint_every = checkpoint_every
        self.durable = durable
        self._lines = folder / "journal.jsonl"
        self._redo = folder / "redo.bin"
        self._identity: Mapping[str, object] | None = None
        self._position: Position | None = None
        self._since_checkpoint = 0
        self._num_lines = 0
        self._read_lines(repair=not read_only)

    @property
    def identity(self) -> Mapping[str, object] | None:
        """Settings that the journal belongs to, or ``None`` before :meth:`claim`."""
        return self._identity

    @property
    def position(self) -> Position | None:
        """The last checkpoint, or ``None`` if the stage has not begun."""
        return self._position

    def claim(self, identity: Mapping[str, object]) -> None:
        """Record the settings of the stage, or check them against those that the folder was begun with.

        Raises:
            JobFolderError: If they differ; the message names the settings.
        """
        identity = json.loads(json.dumps(identity))
        if self._identity is None:
            self._identity = identity
            self._append({"identity": identity})
            return
        names = sorted({*identity, *self._identity})
        differing = [
            f"{name} was {self._identity.get(name)!r} and is {identity.get(name)!r}"
            for name in names
            if identity.get(name) != self._identity.get(name)
        ]
        if len(differing) == 1 and differing[0].startswith("clean "):
            raise JobFolderError(
                f"{self._lines.parent} holds another encoded image than the one that it was begun with, or "
                "a damaged one; delete the folder of the stage to compute it again"
            )
        if differing:
            raise JobFolderError(
                f"{self._lines.parent} was begun with other settings: {'; '.join(differing)}; "
                "use those or another folder"
            )

    def recover(self, reading: Sequence[Canvas], writing: Sequence[Canvas]) -> Position | None:
        """Bring the canvases to the last finished patch.

        Args:
            reading: Canvases that the current step reads.
            writing: Canvases that the current step writes.

        Returns:
            The position from which to resume; ``None`` if the stage has not begun.

        Raises:
            JobFolderError: If a canvas has changed since it was finished.
        """
        position = self._position
        if position is None:
            return None
        for canvas, checksum in zip(reading, position.checksums, strict=True):
            if canvas.checksum() != checksum:
                raise JobFolderError(
                    f"a canvas of {self._lines.parent} is damaged: it differs from what step {position.step} "
                    "began with; delete the folder of the stage to compute it again"
                )
        done = position.done
        for patch, row, column, values in self._records(position.step, writing):
            if patch == done:
                done += 1
            for canvas, region in zip(writing, values.split(writing[0].channels), strict=True):
                canvas.write(row, column, region)
        position = Position(position.step, done, position.calls + done - position.done, position.checksums)
        self.checkpoint(position, writing)
        return position

    def record(self, step: int, patch: int, row: int, column: int, values: Tensor) -> None:
        """Save the new values of a region before they are written.

        Args:
            step: Current step.
            patch: Number of the patch in the plan.
            row: First row of the region.
            column: First column of the region.
            values: ``(planes, height, width)`` on the CPU, in the dtype of the canvases.
        """
        payload = values.contiguous().numpy().tobytes()
        height, width = values.shape[1:]
        header = _RECORD.pack(step, patch, row, column, height, width, len(payload), zlib.crc32(payload))
        with self._redo.open("ab") as file:
            file.write(header + _CHECK.pack(zlib.crc32(header)) + payload)
            file.flush()
            if self.durable:
                os.fsync(file.fileno())
        self._since_checkpoint += 1

    def is_due(self) -> bool:
        """Return whether enough patches were recorded for a checkpoint."""
        return self._since_checkpoint >= self.checkpoint_every

    def checkpoint(self, position: Position, writing: Sequence[Canvas]) -> None:
        """Record a position whose canvases are complete, and empty the redo file."""
        for canvas in writing:
            canvas.flush()
        self._append({"position": asdict(position)})
        self._position = position
        self._since_checkpoint = 0
        self._redo.write_bytes(_HEAD.pack(_MAGIC, self._num_lines))

    def _records(self, step: int, writing: Sequence[Canvas]) -> Iterator[tuple[int, int, int, Tensor]]:
        """Yield patch, row, column and values of the whole records of a step, up to the first torn one."""
        if not self._redo.exists():
            return
        dtype = np.dtype("<f2") if writing[0].dtype == torch.float16 else np.dtype("<f4")
        planes = sum(canvas.channels for canvas in writing)
        with self._redo.open("rb") as file:
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                return
            magic, num_lines = _HEAD.unpack(head)
            if magic != _MAGIC or num_lines > self._num_lines:
                raise JobFolderError(
                    f"{self._lines} has lost {num_lines - self._num_lines} lines, so its canvases cannot be "
                    "trusted; delete the folder of the stage to compute it again"
                )
            if num_lines < self._num_lines:  # killed after a checkpoint, before the file was emptied
                return
            while len(header := file.read(_RECORD.size + _CHECK.size)) == _RECORD.size + _CHECK.size:
                if zlib.crc32(header[: _RECORD.size]) != _CHECK.unpack(header[_RECORD.size :])[0]:
                    return
                at, patch, row, column, height, width, count, crc = _RECORD.unpack(header[: _RECORD.size])
                payload = file.read(count)
                if len(payload) < count or zlib.crc32(payload) != crc:
                    return
                if at == step:
                    values = np.frombuffer(bytearray(payload), dtype).reshape(planes, height, width)
                    yield patch, row, column, torch.from_numpy(values)

    def _append(self, entry: Mapping[str, object]) -> None:
        text = json.dumps(entry, sort_keys=True)
        with self._lines.open("ab") as file:
            file.write(f"{zlib.crc32(text.encode()):08x} {text}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        self._num_lines += 1

    def _read_lines(self, *, repair: bool) -> None:
        if not self._lines.exists():
            return
        content, kept = self._lines.read_bytes(), 0
        for line in content.splitlines(keepends=True):
            check, _, text = line.rstrip(b"\n").partition(b" ")
            if not line.endswith(b"\n"):
                break
            if check != f"{zlib.crc32(text):08x}".encode():
                raise JobFolderError(
                    f"{self._lines} is damaged in line {self._num_lines + 1}; delete the folder of the stage "
                    "to compute it again"
                )
            kept += len(line)
            self._num_lines += 1
            entry = json.loads(text)
            if "identity" in entry:
                self._identity = entry["identity"]
            else:
                held = entry["position"]
                checksums = tuple(held["checksums"])
                self._position = Position(held["step"], held["done"], held["calls"], checksums)
        if repair and kept < len(content):
            with self._lines.open("r+b") as file:
                file.truncate(kept)
