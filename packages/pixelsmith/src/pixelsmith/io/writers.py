# SPDX-License-Identifier: Apache-2.0
"""One call for every kind of file; a name appears when its file is whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from PIL import Image

from pixelsmith.io.dzi import write_dzi
from pixelsmith.io.png import write_png
from pixelsmith.io.rows import Rows
from pixelsmith.io.tiff import write_tiff
from pixelsmith.io.viewer import write_viewer

SUFFIXES = (".png", ".tif", ".tiff", ".dzi", ".jpg", ".jpeg", ".webp")
_WHOLE = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}  # longest side; these are not written in strips


def check_output(path: str | os.PathLike[str], height: int, width: int) -> Path:
    """Return the path of an output if a file of this kind can hold the picture.

    Args:
        path: The file to be.
        height: Pixels.
        width: Pixels.

    Raises:
        ValueError: If the suffix is unknown or the kind too small for the picture.
        FileNotFoundError: If there is no such folder.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"the output must end in one of {', '.join(SUFFIXES)}, got {path.name}")
    longest = _WHOLE.get(suffix)
    if longest is not None and max(height, width) > longest:
        raise ValueError(
            f"a {suffix} file has at most {longest} pixels a side, got height {height} and width {width}; "
            "write .tif or .dzi"
        )
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}; make it first")
    return path


def disk_needed(path: Path, height: int, width: int) -> int:
    """Return the bytes that writing may take at most, scratch files included."""
    raw = height * width * 3
    return raw * 2 if path.suffix.lower() in (".tif", ".tiff", ".dzi") else raw + raw // 8


def write_image(path: str | os.PathLike[str], rows: Rows, *, quality: int = 92) -> list[Path]:
    """Write a picture in the format that its name says.

    Args:
        path: Ends in .png, .tif (tiled BigTIFF with pyramid), .dzi (Deep Zoom, with an HTML viewer beside
            it), .jpg or .webp.
        rows: The picture.
        quality: Of formats that lose something, 1 to 95.

    Returns:
        What was written: the file, and for .dzi the folder of tiles and the viewer.

    Raises:
        ValueError: As :func:`check_output`.
        OSError: If the disk has too little room, or the file cannot be written.
    """
    path = check_output(path, rows.height, rows.width)
    needed, free = disk_needed(path, rows.height, rows.width), shutil.disk_usage(path.absolute().parent).free
    if needed > free:
        raise OSError(f"{path.name} may need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")
    suffix = path.suffix.lower()
    if suffix == ".dzi":
        write_dzi(path, rows, quality=quality)
        return [path, path.with_name(f"{path.stem}_files"), write_viewer(path)]
    part = path.with_name(f".{path.name}.part")
    try:
        if suffix == ".png":
            write_png(part, rows)
        elif suffix in (".tif", ".tiff"):
            write_tiff(part, rows)
        else:
            kind = "WEBP" if suffix == ".webp" else "JPEG"
            Image.fromarray(rows.read(0, rows.height)).save(part, format=kind, quality=quality)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return [path]
