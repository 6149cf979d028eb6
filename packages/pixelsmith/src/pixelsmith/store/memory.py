# SPDX-License-Identifier: Apache-2.0
"""Jobs in memory, lost with the process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import torch

from pixelsmith.store.canvas import Canvas
from pixelsmith.store.record import StageRecord
from pixelsmith.store.rows import ArrayRows
from pixelsmith.store.source import Source

__all__ = ["MemoryStage", "MemoryStore"]


class MemoryStage:
    """Canvases, image and progress of one stage in memory.

    Args:
        device: Device of the canvases.
        dtype: Dtype of the canvases, float32 or float16.
    """

    path = None
    journal = None

    def __init__(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.device = device
        self.dtype = dtype
        self.record = StageRecord()
        self._canvases: dict[str, Canvas] = {}
        self._image: ArrayRows | None = None

    def save(self, **changes: int) -> None:
        """Change entries of the record."""
        self.record = replace(self.record, **changes)

    def has_canvas(self, name: str) -> bool:
        """Return whether a canvas has been made."""
        return name in self._canvases

    def canvases(
        self, names: Sequence[str], channels: int, height: int, width: int, dtype: torch.dtype | None = None
    ) -> list[Canvas]:
        """Return one canvas per name, filled with zeros if it is new."""
        for name in names:
            if name not in self._canvases:
                made = Canvas.zeros(channels, height, width, dtype=dtype or self.dtype, device=self.device)
                self._canvases[name] = made
        return [self._canvases[name] for name in names]

    def image(self, size: tuple[int, int]) -> ArrayRows:
        """Return the image of the stage, black if it is new."""
        if self._image is None:
            self._image = ArrayRows(np.zeros((*size, 3), dtype=np.uint8))
        return self._image

    def finish(self) -> None:
        """Mark the stage as complete and drop its canvases."""
        self.save(is_complete=True)
        self._canvases.clear()


class MemoryStore:
    """A job in memory.

    Args:
        device: Device of the canvases.
    """

    path = None

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = device
        self._source: Source | None = None
        self._stages: dict[int, MemoryStage] = {}

    def check(self, identity: Mapping[str, object]) -> None:
        """Accept any job."""

    def open(self, identity: Mapping[str, object]) -> AbstractContextManager[None]:
        """Return a context without effect: no other process sees this memory."""
        return nullcontext()

    def source(self) -> Source | None:
        """Return the first image, or ``None`` before :meth:`save_source`."""
        return self._source

    def save_source(self, source: Source) -> Source:
        """Keep the first image."""
        self._source = source
        return source

    def save(self, name: str, values: Mapping[str, object]) -> None:
        """Do nothing."""

    def stage(self, number: int, dtype: torch.dtype = torch.float32) -> MemoryStage:
        """Return the store of a stage."""
        return self._stages.setdefault(number, MemoryStage(self.device, dtype))
