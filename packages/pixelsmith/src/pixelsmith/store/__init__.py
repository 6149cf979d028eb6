# SPDX-License-Identifier: Apache-2.0
"""Stores of the canvases, images and progress of a job: in memory, or resumable in a folder."""

from pixelsmith.store.canvas import Canvas
from pixelsmith.store.errors import JobFolderError
from pixelsmith.store.folder import FolderStage, FolderStore, remove_job
from pixelsmith.store.journal import Journal
from pixelsmith.store.memory import MemoryStage, MemoryStore
from pixelsmith.store.protocol import JobStore, StageStore

__all__ = [
    "Canvas",
    "FolderStage",
    "FolderStore",
    "JobFolderError",
    "JobStore",
    "Journal",
    "MemoryStage",
    "MemoryStore",
    "StageStore",
    "remove_job",
]
