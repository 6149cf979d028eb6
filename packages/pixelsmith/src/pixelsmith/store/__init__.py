# SPDX-License-Identifier: Apache-2.0
"""Where canvases live, and the journal that makes a job resumable."""

from pixelsmith.store.canvas import Canvas
from pixelsmith.store.folder import JobFolder, JobFolderError
from pixelsmith.store.journal import Journal
from pixelsmith.store.stores import CanvasStore, FolderStore, MemoryStore

__all__ = ["Canvas", "CanvasStore", "FolderStore", "JobFolder", "JobFolderError", "Journal", "MemoryStore"]
