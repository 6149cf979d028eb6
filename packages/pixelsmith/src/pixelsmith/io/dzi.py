# SPDX-License-Identifier: Apache-2.0
"""Deep Zoom images: a folder of small tiles at every scale, and the file that describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from PIL import Image

from pixelsmith.io.pyramid import build_pyramid
from pixelsmith.io.scratch import scratch_folder
from pixelsmith.store.rows import Rows

TILE, OVERLAP = 254, 1
TileFormat = Literal["jpg", "png"]


def describe(height: int, width: int, tile_format: TileFormat) -> str:
    """Return the text of a ``.dzi`` file."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="{tile_format}" '
        f'Overlap="{OVERLAP}" TileSize="{TILE}">\n'
        f'  <Size Height="{height}" Width="{width}"/>\n'
        "</Image>\n"
    )


def files_folder(path: Path) -> Path:
    """Return the folder of tiles that belongs to a ``.dzi`` file."""
    return path.with_name(f"{path.stem}_files")


def write_dzi(path: Path, rows: Rows, *, tile_format: TileFormat = "jpg", quality: int = 92) -> None:
    """Write a Deep Zoom image; the ``.dzi`` file is written last, when all tiles exist.

    Args:
        path: Output ``.dzi`` file; the tiles go to the folder ``<name>_files`` beside it. Both are replaced.
        rows: The image.
        tile_format: Format of the tiles.
        quality: Quality of JPEG tiles, 1 to 95.
    """
    with scratch_folder(path) as scratch:
        levels = build_pyramid(rows, scratch)[::-1]  # level 0 is a single pixel
        made = scratch / "files"
        for number, level in enumerate(levels):
            folder = made / str(number)
            folder.mkdir(parents=True)
            _write_level(folder, level, tile_format, quality)
        levels.clear()
        put_in_place(path, made, scratch, (rows.height, rows.width), tile_format)


def put_in_place(
    path: Path, made: Path, scratch: Path, size: tuple[int, int], tile_format: TileFormat
) -> None:
    """Move finished tiles beside a ``.dzi`` file, which is written last.

    Args:
        path: Output ``.dzi`` file.
        made: Folder of the tiles.
        scratch: Scratch folder, which takes the tiles that are replaced.
        size: Height and width of the image in pixels.
        tile_format: Format of the tiles.
    """
    descriptor = scratch / path.name
    descriptor.write_text(describe(*size, tile_format), "utf-8")
    folder = files_folder(path)
    path.unlink(missing_ok=True)
    if folder.exists():
        folder.rename(scratch / "replaced")
    made.rename(folder)
    descriptor.replace(path)


def _write_level(folder: Path, level: Rows, tile_format: TileFormat, quality: int) -> None:
    for row, top in enumerate(range(0, level.height, TILE)):
        first, last = max(top - OVERLAP, 0), min(top + TILE + OVERLAP, level.height)
        band = level.read(first, last)
        for column, left in enumerate(range(0, level.width, TILE)):
            part = band[:, max(left - OVERLAP, 0) : min(left + TILE + OVERLAP, level.width)]
            file, tile = folder / f"{column}_{row}.{tile_format}", Image.fromarray(part)
            if tile_format == "jpg":
                tile.save(file, quality=quality, subsampling=0)
            else:
                tile.save(file)
