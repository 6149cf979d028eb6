# SPDX-License-Identifier: Apache-2.0
"""PNG, TIFF and Deep Zoom by libvips, if pyvips is installed (``pixelsmith[vips]``), in strips as ours.

libvips packs and halves faster than our writers, on all cores. It knows few of the metadata that we keep, so
those are put into its files here: chunks of a PNG on their way to the disk, tags of a TIFF at its end.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from common_kernels.runtime.files import atomic_path, atomic_write
from common_kernels.runtime.images.png_stream import Chunk, write_chunk

from pixelsmith.io.dzi import OVERLAP, TILE, put_in_place
from pixelsmith.io.metadata import NO_METADATA, Metadata
from pixelsmith.io.scratch import scratch_folder
from pixelsmith.store.rows import ArrayRows, Pixels, RawImage, Rows, bands

_BAND = 256
_START = 33  # bytes of a PNG up to the end of its first chunk, the header
_TILE = 256
_ENTRY = 20  # bytes of a tag in a BigTIFF
_ASCII, _SHORT, _RATIONAL = 2, 3, 5
_SOFTWARE, _X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 305, 282, 283, 296

Tag = tuple[int, int, int, bytes]
"""Code, kind, number of values, values."""


@cache
def find_vips() -> str | None:
    """Return the versions of pyvips and libvips, or ``None`` if either is missing."""
    try:
        import pyvips
    except (ImportError, OSError):  # pyvips without its library
        return None
    return f"pyvips {pyvips.__version__} (libvips {'.'.join(str(pyvips.version(part)) for part in range(3))})"


def write_png(path: Path, rows: Rows, *, level: int = 6, metadata: Metadata = NO_METADATA) -> None:
    """Write a PNG as :func:`pixelsmith.io.png.write_png` does.

    Raises:
        OSError: If the file cannot be written.
    """
    import pyvips

    with scratch_folder(path) as scratch, atomic_write(path) as file, _errors(path):
        stream = _PNGStream(file, metadata.png_chunks())
        target = pyvips.TargetCustom()
        target.on_write(stream.write)  # pyright: ignore[reportArgumentType]  # it hands over bytes
        try:
            _image(rows, scratch).pngsave_target(target, compression=level, filter="all", keep="none")
        except pyvips.Error as error:
            raise stream.error or error from None


class _PNGStream:
    """A file that takes a PNG and puts chunks of ours between its header and its pixels.

    Args:
        file: File open for writing.
        chunks: The chunks.
    """

    def __init__(self, file: BinaryIO, chunks: Sequence[Chunk]) -> None:
        self.file = file
        self.chunks = chunks
        self.head = b""
        self.has_begun = False
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Take bytes; an error is kept, since it cannot pass through libvips."""
        try:
            self._write(bytes(data))
        except OSError as error:
            self.error = error
            return -1
        return len(data)

    def _write(self, data: bytes) -> None:
        if self.has_begun:
            self.file.write(data)
            return
        self.head += data
        # without metadata of its own libvips writes nothing but the resolution before the pixels
        pixels = self.head.find(b"IDAT", _START) - 4
        if pixels < 0:
            return
        self.file.write(self.head[:_START])
        for kind, content in self.chunks:
            write_chunk(self.file, kind, content)
        self.file.write(self.head[pixels:])
        self.has_begun = True


def write_tiff(path: Path, rows: Rows, *, metadata: Metadata = NO_METADATA) -> None:
    """Write a tiled BigTIFF with a pyramid as :func:`pixelsmith.io.tiff.write_tiff` does.

    The levels of the pyramid are those of libvips: sizes are rounded down, colours weighed by their opacity.

    Raises:
        OSError: If the file cannot be written.
    """
    with scratch_folder(path) as scratch, atomic_path(path) as temporary, _errors(path):
        _image(rows, scratch).tiffsave(
            str(temporary), compression="deflate", predictor="horizontal", tile=True, tile_width=_TILE,
            tile_height=_TILE, pyramid=True, subifd=True, bigtiff=True, keep="none",
        )  # fmt: skip
        with temporary.open("r+b") as file:
            _add_tags(file, metadata)


def _add_tags(file: BinaryIO, metadata: Metadata) -> None:
    """Replace the first directory of a BigTIFF by one at the end that has our tags, too.

    Source: the BigTIFF extension of TIFF 6.0.
    """
    order = "<" if file.read(2) == b"II" else ">"
    file.seek(8)
    (first,) = struct.unpack(f"{order}Q", file.read(8))
    file.seek(first)
    (count,) = struct.unpack(f"{order}Q", file.read(8))
    raw = file.read(count * _ENTRY)
    following = file.read(8)
    entries = {
        struct.unpack(f"{order}H", raw[place : place + 2])[0]: raw[place : place + _ENTRY]
        for place in range(0, len(raw), _ENTRY)
    }
    for code, kind, number, values in _tags(metadata, order):
        held = values.ljust(8, b"\0")
        if len(values) > 8:
            place = file.seek(0, 2)
            file.write(values)
            held = struct.pack(f"{order}Q", place)
        entries[code] = struct.pack(f"{order}HHQ", code, kind, number) + held
    end = file.seek(0, 2)
    file.write(b"\0" * (-end % 8))  # a directory begins at an even place
    end = file.tell()
    file.write(struct.pack(f"{order}Q", len(entries)))
    file.writelines(entries[code] for code in sorted(entries))
    file.write(following)
    file.seek(8)
    file.write(struct.pack(f"{order}Q", end))


def _tags(metadata: Metadata, order: str) -> list[Tag]:
    software = metadata.software.encode() + b"\0"
    found: list[Tag] = [(_SOFTWARE, _ASCII, len(software), software)]
    found += [(code, kind, number, values) for code, kind, number, values, _ in metadata.tiff_tags()]
    unit, resolution = (1, (1.0, 1.0)) if metadata.dpi is None else (2, metadata.dpi)  # none, inch
    for code, value in zip((_X_RESOLUTION, _Y_RESOLUTION), resolution, strict=True):
        ratio = Fraction(value).limit_denominator(10_000)
        found.append((code, _RATIONAL, 1, struct.pack(f"{order}II", ratio.numerator, ratio.denominator)))
    return [*found, (_RESOLUTION_UNIT, _SHORT, 1, struct.pack(f"{order}H", unit))]


def write_dzi(path: Path, rows: Rows, *, quality: int = 92) -> None:
    """Write a Deep Zoom image of JPEG tiles as :func:`pixelsmith.io.dzi.write_dzi` does.

    Raises:
        OSError: If a file cannot be written.
    """
    with scratch_folder(path) as scratch:
        with _errors(path):
            _image(rows, scratch).dzsave(
                str(scratch / "made"), suffix=f".jpg[Q={quality},subsample-mode=off]", tile_size=TILE,
                overlap=OVERLAP, depth="onepixel", keep="none",
            )  # fmt: skip
        made = scratch / "made_files"
        (made / "vips-properties.xml").unlink(missing_ok=True)
        put_in_place(path, made, scratch, (rows.height, rows.width), "jpg")


# the stubs of pyvips take enumerations for numbers
def _image(rows: Rows, scratch: Path) -> Any:
    """Return an image of libvips over the pixels, which are copied to the disk if they are computed."""
    import pyvips

    array: Pixels
    if isinstance(rows, ArrayRows):
        array = np.ascontiguousarray(rows.array)
    else:
        raw = RawImage.create(
            scratch / "whole.npy", rows.height, rows.width, channels=rows.read(0, 1).shape[2]
        )
        for top, band in bands(rows, _BAND):
            raw.write(top, band)
        array = raw.array
    memory: Any = array.data
    image = pyvips.Image.new_from_memory(memory, rows.width, rows.height, array.shape[2], "uchar")
    return image.copy(interpretation="srgb")


@contextmanager
def _errors(path: Path) -> Generator[None]:
    """Raise what libvips has to say as an ``OSError``."""
    import pyvips

    try:
        yield
    except pyvips.Error as error:
        free = shutil.disk_usage(path.parent).free
        said = " ".join(str(error).split())
        raise OSError(f"{path} could not be written, with {free >> 20} MiB free there: {said}") from error
