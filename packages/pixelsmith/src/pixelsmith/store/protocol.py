# SPDX-License-Identifier: Apache-2.0
"""Interface of a store of images, canvases and progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch

from pixelsmith.store.canvas import Canvas
from pixelsmith.store.journal import Journal
from pixelsmith.store.record import StageRecord
from pixelsmith.store.rows import ArrayRows
from pixelsmith.store.source import Source

__all__ = ["JobStore", "StageStore"]


class StageStore(Protocol):
    """Canvases, image and progress of one stage."""

    @property
    def path(self) -> Path | None:
        """Folder of the stage; ``None`` in memory."""
        ...

    @property
    def record(self) -> StageRecord:
        """Progress of the stage outside the denoising loop."""
        ...

    @property
    def journal(self) -> Journal | None:
        """Journal that makes the denoising loop resumable; ``None`` in memory."""
        ...

    def save(self, **changes: int) -> None:
        """Change entries of the record."""
        ...

    def has_canvas(self, name: str) -> bool:
        """Return whether a canvas has been made."""
        ...

    def canvases(
        self, names: Sequence[str], channels: int, height: int, width: int, dtype: torch.dtype | None = None
    ) -> list[Canvas]:
        """Return one canvas per name; those that exist keep their values.

        Args:
            names: Names of the canvases.
            channels: Channels of the latents.
            height: Rows of latents.
            width: Columns of latents.
            dtype: Dtype of the canvases; that of the store if ``None``.
        """
        ...

    def image(self, size: tuple[int, int]) -> ArrayRows:
        """Return the writable image of the stage; one that exists keeps its pixels.

        Args:
            size: Height and width of a new image in pixels.
        """
        ...

    def finish(self) -> None:
        """Mark the stage as complete and release its canvases."""
        ...


class JobStore(Protocol):
    """Stages, first image and description of one job."""

    @property
    def path(self) -> Path | None:
        """Folder of the job; ``None`` in memory."""
        ...

    def check(self, identity: Mapping[str, object]) -> None:
        """Refuse a store that holds another job, before anything is computed or changed.

        Raises:
            JobFolderError: If the job cannot be stored there.
        """
        ...

    def open(self, identity: Mapping[str, object]) -> AbstractContextManager[None]:
        """Reserve the store for one process and one job while the context lasts.

        Raises:
            JobFolderError: If the job cannot be stored there, or another process uses the store.
        """
        ...

    def source(self) -> Source | None:
        """Return the first image, or ``None`` before :meth:`save_source`.

        Raises:
            JobFolderError: If it is damaged.
        """
        ...

    def save_source(self, source: Source) -> Source:
        """Keep the first image, and return it as it is kept."""
        ...

    def save(self, name: str, values: Mapping[str, object]) -> None:
        """Keep a JSON file beside the job; a store in memory ignores it."""
        ...

    def stage(self, number: int, dtype: torch.dtype = torch.float32) -> StageStore:
        """Return the store of a stage; ``dtype`` is that of its canvases."""
        ...
