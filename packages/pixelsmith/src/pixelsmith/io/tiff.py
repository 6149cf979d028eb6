# SPDX-License-Identifier: Apache-2.0
"""Tiled BigTIFF files with a pyramid, as slide viewers and image servers open them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile
from common_kernels.runtime.files import atomic_path

from pixelsmith.io.metadata import NO_METADATA, Metadata
from pixelsmith.io.pyramid import build_pyramid
from pixelsmith.io.scratch import scratch_folder
from pixelsmith.store.rows import Pixels, Rows

Compression = Literal["zlib", "none"]


def write_tiff(
    path: Path,
    rows: Rows,
    *,
    tile: int = 256,
    compression: Compression = "zlib",
    smallest: int = 256,
    metadata: Metadata = NO_METADATA,
) -> None:
    """Write an image and its pyramid, tile by tile; the file appears when it is complete.

    Args:
        path: Output file.
        rows: The image.
        tile: Side of a tile in pixels, a multiple of 16.
        compression: ``"zlib"`` (deflate with prediction, lossless) or ``"none"``.
        smallest: Longest side of the last level of the pyramid, the first that is no larger.
        metadata: Texts and resolution, kept with the largest level.

    Raises:
        ValueError: If ``tile`` is not a positive multiple of 16.
    """
    if tile < 16 or tile % 16:
        raise ValueError(f"tile must be a positive multiple of 16, got {tile}")
    packs = compression == "zlib"
    with scratch_folder(path) as scratch, atomic_path(path) as temporary:
        levels = build_pyramid(rows, scratch, smallest)
        with tifffile.TiffWriter(temporary, bigtiff=True) as file:
            for number, level in enumerate(levels):
                channels = level.read(0, 1).shape[2]
                file.write(
                    tiles(level, tile),
                    shape=(level.height, level.width, channels),
                    dtype=np.uint8,
                    photometric="rgb",
                    tile=(tile, tile),
                    subifds=len(levels) - 1 if number == 0 else None,
                    subfiletype=0 if number == 0 else 1,
                    metadata=None,
                    extrasamples=["unassalpha"] if channels == 4 else None,
                    resolution=metadata.dpi,
                    resolutionunit="INCH" if metadata.dpi else None,
                    software=metadata.software,
                    extratags=metadata.tiff_tags() if number == 0 else (),
                    maxworkers=1,
                    compression="zlib" if packs else None,
                    predictor=packs,
                )
        levels.clear()


def tiles(rows: Rows, side: int) -> Iterator[Pixels]:
    """Yield square tiles in raster order, those at the edges filled up with black, ``(side, side, C)``."""
    for top in range(0, rows.height, side):
        band = rows.read(top, min(top + side, rows.height))
        for left in range(0, rows.width, side):
            part = band[:, left : left + side]
            if part.shape[:2] != (side, side):
                full = np.zeros((side, side, part.shape[2]), dtype=np.uint8)
                full[: part.shape[0], : part.shape[1]] = part
                part = full
            yield np.ascontiguousarray(part)
