# SPDX-License-Identifier: Apache-2.0
"""PNG files written row by row, of any size that the format allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common_kernels.runtime.files import atomic_write
from common_kernels.runtime.images import png_stream

from pixelsmith.io.metadata import NO_METADATA, Metadata
from pixelsmith.store.rows import Rows, bands

_BAND = 64


def write_png(path: Path, rows: Rows, *, level: int = 6, metadata: Metadata = NO_METADATA) -> None:
    """Write an image, 8 bits per channel, RGB or RGBA; the file appears when it is complete.

    Args:
        path: Output file.
        rows: The image.
        level: Compression level, 0 to 9.
        metadata: Texts, EXIF and resolution.

    Raises:
        ValueError: If a side is longer than the format allows.
    """
    shape = rows.height, rows.width, rows.read(0, 1).shape[2]
    with atomic_write(path) as file:
        png_stream.write_png(
            file,
            (band for _, band in bands(rows, _BAND)),
            shape=shape,
            dtype=np.dtype(np.uint8),
            chunks=metadata.png_chunks(),
            level=level,
        )
