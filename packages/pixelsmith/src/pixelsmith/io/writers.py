# SPDX-License-Identifier: Apache-2.0
"""One call for every format; a file appears when it is complete."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

from common_kernels.runtime.files import atomic_path, check_free_space, remove_temporary_files
from PIL import Image

from pixelsmith.io import vips
from pixelsmith.io.alpha import Transparent
from pixelsmith.io.dzi import files_folder, write_dzi
from pixelsmith.io.metadata import NO_METADATA, Metadata
from pixelsmith.io.png import write_png
from pixelsmith.io.tiff import write_tiff
from pixelsmith.io.viewer import write_viewer
from pixelsmith.store.rows import Rows

Writer = Literal["auto", "pixelsmith", "pyvips"]
SUFFIXES = (".png", ".tif", ".tiff", ".dzi", ".jpg", ".jpeg", ".webp")
_WHOLE = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}  # longest side; these are not written in strips
_JPEG_SEGMENT = 65_533  # bytes of an EXIF block in a JPEG


def check_output(path: str | os.PathLike[str], height: int, width: int) -> Path:
    """Return the path of an output if a file of this format can hold the image.

    Args:
        path: Output file.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Raises:
        ValueError: If the suffix is unknown or the format too small for the image.
        NotADirectoryError: If the folder of the file is a file.
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
    folder = path.absolute().parent
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file, but a folder is needed")
    return path


def output_files(path: Path) -> dict[str, Path]:
    """Return the files that writing an output makes, by kind: a .dzi has a folder of tiles and a viewer."""
    if path.suffix.lower() != ".dzi":
        return {"image": path}
    return {"image": path, "tiles": files_folder(path), "viewer": path.with_suffix(".html")}


def holds_alpha(path: Path) -> bool:
    """Return whether files of this format hold transparency."""
    return path.suffix.lower() in (".png", ".tif", ".tiff", ".webp")


def disk_needed(path: Path, height: int, width: int, *, alpha: bool = False) -> int:
    """Return the most bytes that writing may take, scratch files included."""
    raw = height * width * (4 if alpha else 3)
    copy = raw if alpha and writes_by_vips(path) else 0
    return copy + (raw * 2 if path.suffix.lower() in (".tif", ".tiff", ".dzi") else raw + raw // 8)


def writes_by_vips(path: Path, writer: Writer = "auto") -> bool:
    """Return whether libvips writes a file.

    Raises:
        ImportError: If ``"pyvips"`` is named and not installed.
    """
    if writer == "pyvips" and vips.find_vips() is None:
        raise ImportError('this needs pyvips: pip install "pixelsmith[vips]"')
    return writer != "pixelsmith" and path.suffix.lower() not in _WHOLE and vips.find_vips() is not None


def writer_name(path: Path) -> str:
    """Return what writes a file of this suffix here, with versions."""
    if path.suffix.lower() in _WHOLE:
        return "Pillow"
    return vips.find_vips() or 'pixelsmith (pip install "pixelsmith[vips]" writes faster)'


def write_image(
    path: str | os.PathLike[str],
    rows: Rows,
    *,
    quality: int = 92,
    metadata: Metadata = NO_METADATA,
    alpha: Rows | None = None,
    writer: Writer = "auto",
) -> list[Path]:
    """Write an image in the format of its suffix.

    Args:
        path: Output file: .png, .tif (tiled BigTIFF with pyramid), .dzi (Deep Zoom, with an HTML viewer
            beside it), .jpg or .webp.
        rows: The image.
        quality: Quality of JPEG and WebP, 1 to 95.
        metadata: How the image was made, EXIF and resolution; a .dzi has none.
        alpha: Opacity, see :class:`pixelsmith.io.alpha.Transparent`; kept where the format has it, which
            :func:`holds_alpha` tells.
        writer: What writes PNG, TIFF and Deep Zoom: ``"pyvips"``, ours, or the former if it is installed.

    Returns:
        The files written: the output, and for .dzi the folder of tiles and the viewer.

    Raises:
        ValueError: If the suffix is unknown or the format too small for the image.
        ImportError: If ``writer`` is ``"pyvips"``, which is not installed.
        FreeSpaceError: If the disk has too little free space.
        OSError: If the file cannot be written.
    """
    path = check_output(path, rows.height, rows.width)
    if alpha is not None and holds_alpha(path):
        rows = Transparent(rows, alpha)
    check_free_space(path, disk_needed(path, rows.height, rows.width, alpha=isinstance(rows, Transparent)))
    remove_temporary_files(path.parent)  # of a run that was killed
    by_vips = writes_by_vips(path, writer)
    match path.suffix.lower():
        case ".dzi":
            (vips.write_dzi if by_vips else write_dzi)(path, rows, quality=quality)
            write_viewer(path)
        case ".png":
            (vips.write_png if by_vips else write_png)(path, rows, metadata=metadata)
        case ".tif" | ".tiff":
            (vips.write_tiff if by_vips else write_tiff)(path, rows, metadata=metadata)
        case suffix:
            kind = "WEBP" if suffix == ".webp" else "JPEG"
            exif = metadata.whole_exif(_JPEG_SEGMENT if kind == "JPEG" else sys.maxsize)
            with atomic_path(path) as temporary:
                Image.fromarray(rows.read(0, rows.height)).save(
                    temporary, format=kind, quality=quality, exif=exif,
                    **({} if metadata.dpi is None else {"dpi": metadata.dpi}),
                )  # fmt: skip
    return list(output_files(path).values())
