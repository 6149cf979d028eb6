# SPDX-License-Identifier: Apache-2.0
"""Makers of canvases."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

import torch

from pixelsmith.store.canvas import Canvas
from pixelsmith.store.errors import JobFolderError

__all__ = ["CanvasStore", "FolderStore", "MemoryStore"]


class CanvasStore(Protocol):
    """Gives a stage its working canvases by name."""

    def canvases(self, names: tuple[str, ...], channels: int, height: int, width: int) -> list[Canvas]:
        """Return one canvas per name; those that exist keep what they hold."""
        ...


class MemoryStore:
    """Canvases in RAM or on a device, gone with the process.

    Args:
        device: Where.
        dtype: float32 or float16.
    """

    def __init__(self, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.device = device
        self.dtype = dtype

    def canvases(self, names: tuple[str, ...], channels: int, height: int, width: int) -> list[Canvas]:
        """Return one canvas of zeros per name."""
        return [Canvas.zeros(channels, height, width, dtype=self.dtype, device=self.device) for _ in names]


class FolderStore:
    """Canvases in mapped files of a folder.

    Args:
        folder: Must exist.
        dtype: float32 or float16.
    """

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.folder = folder
        self.dtype = dtype

    def canvases(self, names: tuple[str, ...], channels: int, height: int, width: int) -> list[Canvas]:
        """Open the files that exist and lay out the others, all of them before anything is computed.

        Raises:
            JobFolderError: If the disk has no room, or a file has another shape or dtype.
        """
        paths = [self.folder / f"{name}.npy" for name in names]
        missing = sum(not path.exists() for path in paths)
        need = missing * channels * height * width * torch.finfo(self.dtype).bits // 8
        free = shutil.disk_usage(self.folder).free
        if need > free:
            raise JobFolderError(
                f"the disk of {self.folder} must have {need >> 20} MiB free for the canvases, "
                f"has {free >> 20} MiB; use another folder or dtype=torch.float16"
            )
        found: list[Canvas] = []
        for path in paths:
            if not path.exists():
                found.append(self._lay_out(path, channels, height, width))
                continue
            canvas = Canvas.open(path)
            if canvas.data.shape != (channels, height, width) or canvas.dtype != self.dtype:
                raise JobFolderError(
                    f"{path.name} must hold {self.dtype} {(channels, height, width)}, "
                    f"holds {canvas.dtype} {tuple(canvas.data.shape)}"
                )
            found.append(canvas)
        return found

    def _lay_out(self, path: Path, channels: int, height: int, width: int) -> Canvas:
        """Create a file under another name first: one of the right name is always whole."""
        draft = path.with_suffix(".part")
        Canvas.create(draft, channels, height, width, dtype=self.dtype).flush()
        draft.replace(path)
        return Canvas.open(path)
