# SPDX-License-Identifier: Apache-2.0
"""Digests of the image that a job enlarges: a job depends on its image."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from pixelsmith.store.rows import Pixels

__all__ = ["digest_image", "digest_pixels"]


def digest_image(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_pixels(pixels: Pixels) -> str:
    """Return the SHA-256 of an image in memory."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()
